//! Tables, and how samples are held out and drawn.

use serde_json::Value;

use super::{Desk, events};

/// A table whose class follows from its columns, with a test part beside it in which columns have another order.
fn write_table(desk: &Desk) {
    let row = |i: usize| {
        let (a, colour) = (i * 37 % 100, ["red", "blue"][i * 13 % 2]);
        let class = if (a >= 50) == (colour == "red") { "same" } else { "other" };
        (a, colour, class)
    };
    let train = |i| {
        let (a, colour, class) = row(i);
        format!("{a},{colour},{class}\n")
    };
    let test = |i| {
        let (a, colour, class) = row(i);
        format!("{class}.,{a},{colour}\n")
    };
    let write = |name: &str, text: String| std::fs::write(desk.path(name), text).expect("writes");
    write(
        "t-train.csv",
        (0..600).map(train).fold("a,colour,class\n".into(), |all, row| all + &row),
    );
    write(
        "t-test.csv",
        (600..700).map(test).fold("class,a,colour\n".into(), |all, row| all + &row),
    );
    write("rows.csv", "colour,a\nred,90\nblue,90\nred,5\n".into());
}

#[test]
fn what_files_say_does_not_steer_a_terminal() {
    let desk = Desk::new();
    let table = "a\u{1b}[31m,b\u{9b}2J,class\n1,x,cat\u{1b}[2J\n2,y,dog\n";
    std::fs::write(desk.path("t.csv"), table).expect("writes");
    let line = "inspect t.csv --target class";
    let (data, told) = desk.run(line, 0);
    for name in ["a\\u{1b}[31m", "b\\u{9b}2J", "cat\\u{1b}[2J"] {
        assert!(data.contains(name), "{data}");
    }
    assert_plain(&(data + &told));
    // JSON has its own way to write them, and names are what they were.
    let data = desk.ok(&format!("{line} --json"));
    assert_plain(&data);
    let data: Value = serde_json::from_str(&data).expect("JSON");
    assert!(data.to_string().contains("b\u{9b}2J"), "{data}");

    // What another library says of it is the cause of an error.
    let header = r#"{"x":{"dtype":"\u001b[31mF","shape":[1],"data_offsets":[0,4]}}"#;
    let length = (header.len() as u64).to_le_bytes();
    let weights = [&length[..], header.as_bytes(), &[0; 4]].concat();
    std::fs::write(desk.path("w.safetensors"), weights).expect("writes");
    let (data, told) = desk.run("inspect w.safetensors", 3);
    assert!(told.contains("unknown variant `\\u{1b}[31mF`"), "{told}");
    assert_plain(&(data + &told));
}

#[track_caller]
fn assert_plain(text: &str) {
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}

#[test]
fn tables_are_trained_evaluated_and_predicted() {
    let desk = Desk::new();
    write_table(&desk);
    let fast = "--device cpu --json";
    let line = format!("train t-train.csv --target class --model mlp --batch-size 32 {fast}");
    let trained = desk.json(&format!("{line} --epochs 8 --out run"), 0);
    let done = trained.last().expect("events");
    assert!(done["val_accuracy"].as_f64() > Some(0.9), "{done}");
    let saved = std::fs::read_to_string(desk.path("run/inputs.json")).expect("inputs");
    let saved: Value = serde_json::from_str(&saved).expect("JSON");
    assert_eq!(saved["fitted"]["features"][1]["column"], "colour");
    let evaluated = desk.json(&format!("eval run {fast}"), 0);
    assert_eq!(evaluated[0]["accuracy"], done["val_accuracy"]);
    let epochs = events(&trained, "epoch");
    let loss = |epoch: &&&Value| epoch["val_loss"].as_f64().expect("a number");
    let best = epochs.iter().min_by(|a, b| loss(a).total_cmp(&loss(b))).expect("epochs");
    let evaluated = desk.json(&format!("eval run/checkpoints/best {fast}"), 0);
    assert_eq!(evaluated[0]["accuracy"], best["val_accuracy"]);
    let step = best["step"].as_u64().expect("a number");
    assert_eq!(evaluated[0]["weights"], format!("run/checkpoints/step-{step}"));
    // Another file is encoded as the training part was, not by what is in it: here all of it is one row over and over.
    std::fs::write(
        desk.path("one.csv"),
        "a,colour,class\n".to_string() + &"90,red,same\n".repeat(9),
    )
    .expect("writes");
    let one = desk.json(&format!("eval run --dataset one.csv {fast}"), 0);
    assert_eq!((&one[0]["samples"], &one[0]["accuracy"]), (&9.into(), &1.0.into()));

    let found = desk.json(&format!("predict rows.csv --run run {fast}"), 0);
    let names: Vec<&str> =
        found.iter().map(|row| row["classes"][0]["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["same", "other", "other"]);
    assert_eq!((&found[1]["row"], &found[1]["file"]), (&2.into(), &"rows.csv".into()));
    let text = desk.ok("predict rows.csv --run run --device cpu");
    assert!(text.starts_with("rows.csv row 1: same ") && text.lines().count() == 3, "{text}");
    std::fs::write(desk.path("rows.csv"), "colour\nred\n").expect("writes");
    desk.refused("predict rows.csv --run run --device cpu", 3, &["rows.csv", "no column \"a\""]);

    // What a run was fitted to stays when it goes on, even where the file has changed meanwhile.
    let held = desk.json(&format!("{line} --out held --steps 20"), 0);
    let fitted = std::fs::read(desk.path("held/inputs.json")).expect("inputs");
    let more = desk.json(&format!("train --resume held --steps 30 {fast}"), 0);
    assert_eq!(std::fs::read(desk.path("held/inputs.json")).expect("inputs"), fitted);
    assert_ne!(
        held.last().expect("events")["parameter_hash"],
        more.last().expect("events")["parameter_hash"]
    );
    desk.refused(
        "train t-train.csv --model mlp --device cpu --target legs",
        2,
        &["--target", "a, colour, class"],
    );
}

#[test]
fn tables_of_numbers_are_predicted_in_their_unit() {
    let desk = Desk::new();
    let rows: String = (0..400).map(|i| format!("{},{}\n", i % 50, 1000 + 20 * (i % 50))).collect();
    std::fs::write(desk.path("line.csv"), format!("x,price\n{rows}")).expect("writes");
    std::fs::write(desk.path("new.csv"), "x\n10\n40\n").expect("writes");
    let line = "train line.csv --target price --task regress --model mlp --epochs 30 --batch-size 32 \
                --device cpu --json --out run";
    desk.json(line, 0);
    let found = desk.json("predict new.csv --run run --device cpu --json", 0);
    for (row, expected) in found.iter().zip([1200.0, 1800.0]) {
        let value = row["value"].as_f64().expect("a number");
        assert!((value - expected).abs() < 40.0, "{value} where {expected} is expected");
    }
}

#[test]
fn samples_can_be_held_out_to_validate_with() {
    let desk = Desk::new();
    let plan = desk.json(
        "train fashion-mnist-10k --model mlp --device cpu --val-split 0.1 --dry-run --json",
        0,
    );
    let samples = |name: &str| plan[0][name].as_u64();
    assert_eq!(
        [samples("train_samples"), samples("val_samples"), samples("test_samples")],
        [Some(7200), Some(800), Some(2000)]
    );
    let all = desk.train("--val-split 0.1 --out run");
    let done = all.last().expect("events");
    let evaluated =
        |more: &str| desk.json(&format!("eval run --device cpu --json {more}"), 0).remove(0);
    let held_out = evaluated("--split val");
    assert_eq!((&held_out["split"], &held_out["samples"]), (&"val".into(), &800.into()));
    assert_eq!(held_out["accuracy"], done["val_accuracy"]);
    assert_eq!(evaluated("--split train")["samples"], 7200);
    // What it was never even chosen by says most.
    assert_eq!(evaluated("")["split"], "test");
    // The saved configuration repeats the run; another seed holds others out.
    let again = desk.json("train run/config.toml --out again --json", 0);
    assert_eq!(again.last().expect("events")["parameter_hash"], done["parameter_hash"]);
    assert_eq!(again.last().expect("events")["val_loss"], done["val_loss"]);
    let other = desk.train("--val-split 0.1 --seed 1");
    assert_ne!(other.last().expect("events")["val_loss"], done["val_loss"]);
    let (_, words) = desk.run("train run/config.toml --steps 1 --out words", 0);
    assert!(words.contains("7,200 training and 800 validation and 2,000 test samples"), "{words}");
    assert!(words.contains("val loss"), "{words}");
}

#[test]
fn samples_can_be_drawn_in_other_ways() {
    let desk = Desk::new();
    let hash = |more: &str| {
        let all = desk.train(more);
        all.last().expect("events")["parameter_hash"].clone()
    };
    let plain = hash("--no-eval");
    for more in ["--shuffle-block 100", "--balance", "--class-weights Bag=2", "--rank 1 --world 2"]
    {
        assert_ne!(hash(&format!("--no-eval {more}")), plain, "{more}");
    }
    let plan = |more: &str| {
        let line =
            format!("train fashion-mnist-10k --model mlp --device cpu --dry-run --json {more}");
        desk.json(&line, 0)[0]["steps_per_epoch"].as_u64()
    };
    assert_eq!(plan("--batch-size 50"), Some(160));
    assert_eq!(plan("--batch-size 50 --world 4 --rank 3"), Some(40));
    assert_eq!(plan("--batch-size 50 --balance --accumulate 2"), Some(80));
    let refused = |more: &str, parts: &[&str]| {
        let line = format!("train fashion-mnist-10k --model mlp --device cpu {more}");
        desk.refused(&line, 2, parts);
    };
    refused("--val-split 1.5", &["--val-split: found 1.5, expected a share above 0 and below 1"]);
    refused("--val-split 0.9999", &["--val-split", "leave a class without a sample to train on"]);
    refused("--val-split 0.00001", &["--val-split: 0.00001 of 8000 samples are 0"]);
    refused("--class-weights cat=2", &["--class-weights: found class cat, expected one of", "Bag"]);
    refused("--class-weights bag", &["--class-weights", "try cat=2,dog=1"]);
    refused("--shuffle-block 5 --balance", &["--shuffle-block: found it with --balance"]);
    refused("--rank 2 --world 2", &["--rank: found rank 2 of 2"]);
    refused("--world 5000 --batch-size 1", &["--world: found 8000 samples for 5000 ranks"]);
    desk.run("train fashion-mnist-10k --on-bad-sample ignore", 2);
    desk.run("train fashion-mnist-10k --bad-sample-budget 101%", 2);
    std::fs::write(desk.path("line.csv"), "x,y\n1,2\n2,4\n3,6\n").expect("writes");
    let line = "train line.csv --target y --task regress --model mlp --device cpu --balance";
    desk.refused(line, 2, &["--balance", "expected classes"]);
}

#[test]
fn what_is_not_finished_is_no_data_set() {
    let desk = Desk::new();
    std::fs::write(desk.path("a.txt"), "the cat sat on the mat ".repeat(100)).expect("writes");
    std::fs::write(desk.path("bad.txt"), b"caf\xe9").expect("writes");
    let tokenize = "tokenize a.txt bad.txt --tokenizer bytes --shard-tokens 1000 --out tok";
    desk.refused(tokenize, 3, &["bad.txt"]);
    let train = |path: &str| {
        format!(
            "train {path} --model gpt-nano --context 16 --steps 1 --no-eval --device cpu --dry-run"
        )
    };
    let unfinished = ["tok: holds what an inflight tokenize has not finished", "once more"];
    desk.refused(&train("tok"), 3, &unfinished);
    desk.refused(&train("tok/train-00000.bin"), 3, &unfinished);
    std::fs::write(desk.path("bad.txt"), "good again").expect("writes");
    desk.ok(tokenize);
    desk.run(&train("tok"), 0);
    desk.refused(tokenize, 2, &["holds something already"]);

    std::fs::create_dir_all(desk.path("sh/.convert")).expect("a folder");
    std::fs::create_dir_all(desk.path("sh/train")).expect("a folder");
    std::fs::write(desk.path("sh/train/shard-000000.tar"), [0; 1024]).expect("writes");
    let unfinished = ["sh: holds what an inflight convert has not finished"];
    for path in ["sh", "sh/train", "sh/train/shard-000000.tar"] {
        desk.refused(&train(path), 3, &unfinished);
    }
}

#[test]
fn what_is_shown_of_a_text_is_checked_before_the_training() {
    let desk = Desk::new();
    std::fs::write(desk.path("a.txt"), "the cat sat on the mat ".repeat(100)).expect("writes");
    let gpt = "train a.txt --model gpt-nano --context 16 --steps 2 --device cpu --out run";
    let long = "x".repeat(17);
    let prompt = ["--sample-prompt: found 17 tokens, expected at most the 16"];
    desk.refused(&format!("{gpt} --sample-prompt {long}"), 2, &prompt);
    let tokens = ["--sample-tokens: found 0, expected at least 1"];
    desk.refused(&format!("{gpt} --sample-prompt x --sample-tokens 0"), 2, &tokens);
    assert!(!desk.path("run").exists(), "no folder was made");
    // Windows that overlap show what is in each other.
    let parts = ["--val-split: found it with --stride 4, below the context of 16"];
    desk.refused(&format!("{gpt} --stride 4 --val-split 0.1"), 2, &parts);
}
