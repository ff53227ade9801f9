//! Gradients that are not finite. The fault is planned into the weight of a part of an accumulated step, so that the
//! forward pass is as it should be.

use serde_json::json;

use super::{Desk, losses};

const FLAGS: &str = "--steps 24 --checkpoint-every 4 --no-shuffle --accumulate 2";

#[test]
fn a_step_that_is_skipped_changes_nothing_and_is_counted() {
    let desk = Desk::new();
    let ended = desk.train("skipped", FLAGS, "nan@6x6", 0);
    let skipped: Vec<u64> = ended
        .all("step")
        .iter()
        .filter(|step| step["skipped"] == true)
        .map(|step| step["step"].as_u64().expect("a number"))
        .collect();
    assert_eq!(skipped, [6, 7, 8]);
    assert_eq!(ended.all("done")[0]["skipped"], 3);
    // Step 8 is a checkpoint of the parameters that step 5 left.
    let five = desk.train("five", "--steps 5 --no-shuffle --accumulate 2", "", 0);
    let stopped = desk.train("eight", "--steps 8 --no-shuffle --accumulate 2", "nan@6x6", 0);
    assert_eq!(stopped.hash(), five.hash());
    let whole = desk.train("whole", FLAGS, "", 0);
    assert_ne!(ended.hash(), whole.hash());
}

#[test]
fn too_many_in_a_row_end_the_run_with_5_and_are_never_saved() {
    let desk = Desk::new();
    for (policy, limit, last) in [("skip", 10, 15), ("skip", 3, 8), ("stop", 10, 6)] {
        let out = format!("{policy}-{limit}");
        let flags = format!("{FLAGS} --on-nan {policy} --nan-limit {limit}");
        let ended = desk.train(&out, &flags, "nan@6x1000", 5);
        let error = ended.error();
        assert!(error.contains(&format!("step {last}")) && error.contains("not finite"), "{error}");
        assert!(ended.all("done").is_empty() && ended.all("restart").is_empty(), "{ended:?}");
        desk.run(&format!("checkpoint verify {out}"), "", 0);
        // Nothing but the steps before is there, and it is what it would have been.
        let names = desk.checkpoints(&out);
        let steps = names.iter().filter_map(|name| name.strip_prefix("step-")?.parse::<u64>().ok());
        assert!(steps.clone().count() > 0 && steps.clone().all(|step| step < last), "{names:?}");
        let resumed = desk.run(&format!("train --resume {out} --json --steps 24"), "", 0);
        assert!(resumed.all("step").iter().all(|step| step["loss"].as_f64().is_some()));
    }
}

#[test]
fn a_rollback_goes_back_with_half_the_rate_and_is_the_same_each_time() {
    let desk = Desk::new();
    let flags = format!("{FLAGS} --on-nan rollback --nan-limit 2");
    let ended = desk.train("one", &flags, "nan@10x4", 0);
    let [restart] = ended.all("restart")[..] else { panic!("{ended:?}") };
    assert_eq!((&restart["step"], &restart["how"]["rolledback"]), (&8.into(), &1.into()));
    let rates: Vec<f64> =
        ended.all("step").iter().map(|step| step["lr"].as_f64().expect("a rate")).collect();
    assert_eq!((rates[0], *rates.last().expect("steps")), (0.01, 0.005));
    assert_eq!(losses(&desk.path("one")).len(), 24);
    let again = desk.train("two", &flags, "nan@10x4", 0);
    assert_eq!(again.hash(), ended.hash());
    assert_eq!(losses(&desk.path("one")), losses(&desk.path("two")));
    // A checkpoint knows of it: whoever goes on from one keeps the lower rate.
    let resumed = desk.run("train --resume one --steps 26 --json", "", 0);
    assert!(resumed.all("step").iter().all(|step| step["lr"] == 0.005), "{resumed:?}");
    // What diverges whatever the rate is given up.
    let ended = desk.train("three", &flags, "nan@10x1000", 5);
    assert_eq!(ended.all("restart").len(), 3);
}

#[test]
fn a_device_that_does_not_open_after_a_divergence_costs_no_further_half_of_the_rate() {
    let desk = Desk::new();
    let flags = format!("{FLAGS} --on-nan rollback --nan-limit 2");
    let ended = desk.train("late", &flags, "nan@10x4,open@2x2", 0);
    let how: Vec<_> = ended.all("restart").iter().map(|restart| restart["how"].clone()).collect();
    assert_eq!(how, [json!({"rolledback": 1}), json!({"rebuilt": 1}), json!({"rebuilt": 2})]);
    assert!(ended.all("step").last().is_some_and(|step| step["lr"] == 0.005), "{ended:?}");
    assert_eq!(ended.hash(), desk.train("at-once", &flags, "nan@10x4", 0).hash());
}
