//! Folders of pictures.

use serde_json::Value;

use super::{Desk, events};

/// A folder with classes of so many pictures each.
fn write_pictures(desk: &Desk, folder: &str, classes: [&str; 2], count: u8) {
    for (i, class) in classes.into_iter().enumerate() {
        std::fs::create_dir_all(desk.path(&format!("{folder}/{class}"))).expect("a folder");
        for n in 0..count {
            let picture = image::GrayImage::from_pixel(6, 6, image::Luma([n + 100 * i as u8]));
            picture.save(desk.path(&format!("{folder}/{class}/{n}.png"))).expect("saves");
        }
    }
}

#[test]
fn a_run_meets_no_classes_that_mean_something_else() {
    let desk = Desk::new();
    write_pictures(&desk, "pictures", ["cat", "dog"], 10);
    let fast = "--device cpu --json";
    desk.ok(&format!("train pictures --model mlp --batch-size 5 --steps 2 --out run {fast}"));
    write_pictures(&desk, "alike", ["cat", "dog"], 3);
    desk.ok(&format!("eval run --dataset alike {fast}"));
    write_pictures(&desk, "other", ["cat", "fox"], 3);
    let fox = "found \"fox\" as class 1, the run had \"dog\"";
    desk.refused(&format!("eval run --dataset other {fast}"), 3, &["other", fox]);
    // The same folder may have changed before a run goes on.
    let resume = format!("train --resume run {fast}");
    let (_, told) = desk.run(&resume, 0);
    assert!(!told.contains("instead of"), "{told}");
    write_pictures(&desk, "pictures", ["cat", "dog"], 12);
    let (_, told) = desk.run(&resume, 0);
    assert!(told.contains("pictures (train) has 24 samples instead of 20"), "{told}");
    std::fs::rename(desk.path("pictures/dog"), desk.path("pictures/fox")).expect("renames");
    desk.refused(&resume, 3, &["pictures", fox]);
    std::fs::rename(desk.path("pictures/fox"), desk.path("pictures/ant")).expect("renames");
    desk.refused(&resume, 3, &["found \"ant\" as class 0, the run had \"cat\""]);
}

#[test]
fn more_pictures_would_hold_out_others() {
    let desk = Desk::new();
    write_pictures(&desk, "pictures", ["cat", "dog"], 10);
    let fast = "--device cpu --json";
    let split = "--model mlp --batch-size 5 --steps 2 --val-split 0.2 --out run";
    desk.json(&format!("train pictures {split} {fast}"), 0);
    // Runs of earlier versions do not know how many samples they had, and go on.
    let known = std::fs::read_to_string(desk.path("run/inputs.json")).expect("inputs");
    let mut unknown: Value = serde_json::from_str(&known).expect("JSON");
    let fields = unknown.as_object_mut().expect("an object");
    assert!(fields.remove("samples").is_some() && fields.remove("trained_on").is_some(), "{known}");
    std::fs::write(desk.path("run/inputs.json"), unknown.to_string()).expect("writes");
    desk.json(&format!("train --resume run --steps 3 {fast}"), 0);
    write_pictures(&desk, "pictures", ["cat", "dog"], 15);
    let parts = ["found 24 samples beside those held out, the run had 16", "trained on some"];
    desk.refused(&format!("train --resume run --steps 4 {fast}"), 3, &parts);
    desk.refused(&format!("eval run --split val {fast}"), 3, &parts);
}

#[test]
fn as_many_pictures_of_other_classes_would_hold_out_others() {
    let desk = Desk::new();
    write_pictures(&desk, "pictures", ["cat", "dog"], 10);
    let fast = "--device cpu --json";
    let split = "--model mlp --batch-size 5 --steps 2 --val-split 0.2 --out run";
    desk.json(&format!("train pictures {split} {fast}"), 0);
    // The same data under other names of their folder are split as they were.
    let of_run = desk.json(&format!("eval run {fast}"), 0);
    for name in ["pictures", "pictures/", "./pictures/../pictures"] {
        assert_eq!(desk.json(&format!("eval run --dataset {name} {fast}"), 0)[0]["split"], "val");
    }
    assert_eq!((&of_run[0]["split"], &of_run[0]["samples"]), (&"val".into(), &4.into()));
    desk.json(&format!("train --resume run --steps 3 {fast}"), 0);
    // A label is mended.
    let [wrong, right] = ["cat/3", "dog/33"].map(|name| desk.path(&format!("pictures/{name}.png")));
    std::fs::rename(wrong, right).expect("renames");
    let parts = ["pictures", "found other samples beside those held out", "trained on some"];
    desk.refused(&format!("train --resume run --steps 4 {fast}"), 3, &parts);
    desk.refused(&format!("eval run --split val {fast}"), 3, &parts);
    desk.json(&format!("eval run --split train {fast}"), 0);
}

#[test]
fn damaged_pictures_are_replaced_within_a_budget() {
    let desk = Desk::new();
    for class in ["dark", "light"] {
        std::fs::create_dir_all(desk.path(&format!("pictures/{class}"))).expect("a folder");
        for i in 0..20u8 {
            let value = if class == "dark" { i } else { 255 - i };
            let picture = image::GrayImage::from_pixel(6, 6, image::Luma([value]));
            let path = desk.path(&format!("pictures/{class}/{i:02}.png"));
            picture.save(&path).expect("saves");
            if i % 10 == 3 {
                let bytes = std::fs::read(&path).expect("reads");
                std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("writes");
            }
        }
    }
    let line = "train pictures --model mlp --batch-size 8 --epochs 2 --device cpu --val-split 0.25";
    desk.refused(line, 3, &["prepare: sample", ".png"]);
    let quarantine = format!("{line} --on-bad-sample quarantine --json");
    let all = desk.json(&format!("{quarantine} --out run"), 0);
    let done = all.last().expect("events");
    assert_eq!((&done["bad_samples"], &done["verdict"]["bad_samples"]), (&4.into(), &4.into()));
    let epochs = events(&all, "epoch");
    for epoch in &epochs {
        let missing = ["replaced", "left_out"].map(|key| epoch[key].as_u64().expect("a number"));
        assert_eq!(missing.iter().sum::<u64>(), 4, "{epoch}");
    }
    let text = std::fs::read_to_string(desk.path("run/quarantine.jsonl")).expect("a ledger");
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(lines.len(), 4);
    for line in &lines {
        assert_eq!(line["event"], "quarantine");
        assert!(line["origin"].as_str().is_some_and(|origin| origin.contains("3.png")), "{line}");
    }
    let (_, words) = desk.run(&format!("{line} --on-bad-sample quarantine --out words"), 0);
    assert!(words.contains("4 bad samples") && words.contains("quarantine.jsonl"), "{words}");
    // An evaluation of the run leaves the same ones out, and says so; or it is an error.
    let evaluated = desk.json("eval run --split val --device cpu --json", 0).remove(0);
    assert_eq!(evaluated["left_out"], epochs[1]["left_out"]);
    assert_eq!(evaluated["accuracy"], epochs[1]["val_accuracy"]);
    desk.refused("eval run --split train --device cpu --on-bad-sample error", 3, &["3.png"]);
    desk.run(&format!("{quarantine} --out over --bad-sample-budget 1"), 3);
    let over =
        desk.command(&format!("{line} --on-bad-sample quarantine --out o --bad-sample-budget 1"));
    let stderr = { over }.output().expect("starts").stderr;
    let stderr = String::from_utf8(stderr).expect("UTF-8");
    for part in [
        "bad samples of",
        "expected at most 1 (--bad-sample-budget)",
        "3.png",
        "o/quarantine.jsonl",
    ] {
        assert!(stderr.contains(part), "{part} is not in {stderr}");
    }
    // Going on does not make them fewer; a larger budget does.
    let resume = "train --resume over --json --bad-sample-budget";
    desk.run(&format!("{resume} 1"), 3);
    desk.json(&format!("{resume} 9"), 0);
}

/// Photographs of two classes: waves that are narrow, which are grey at a quarter of their size, and wide.
fn photographs(desk: &Desk) {
    for (class, wave) in [("narrow", 2), ("wide", 60)] {
        std::fs::create_dir_all(desk.path(&format!("photos/{class}"))).expect("a folder");
        for i in 0..12u32 {
            let picture = image::RgbImage::from_fn(120, 120, |x, y| {
                let light = if (x + y + i) % wave < wave / 2 { 220 } else { 30 };
                image::Rgb([light, light / 2, (3 * i) as u8])
            });
            picture.save(desk.path(&format!("photos/{class}/{i:02}.jpg"))).expect("saves");
        }
    }
}

const PHOTOS: &str = "train photos --model mlp --image-size 24 --batch-size 8 --epochs 2 --device cpu --json --val-split 0.25";

#[test]
#[cfg(feature = "turbojpeg")]
fn what_a_run_decoded_at_reduced_size_is_decoded_so_ever_after() {
    let desk = Desk::new();
    photographs(&desk);
    let line = format!("{PHOTOS} --transforms random-resized-crop:scale=[0.8,1]");
    let done = |more: &str| desk.json(&format!("{line} {more}"), 0).pop().expect("events");
    let full = done("--out full");
    let reduced = done("--decode reduced --out reduced");
    assert_eq!(done("--decode full")["parameter_hash"], full["parameter_hash"]);
    assert_ne!(reduced["parameter_hash"], full["parameter_hash"]);
    let config = std::fs::read_to_string(desk.path("reduced/config.toml")).expect("saved");
    assert!(config.contains("decode = \"reduced\""), "{config}");
    let loss = |line: &str| {
        let all = desk.json(&format!("{line} --split val --device cpu --json"), 0);
        all[0]["loss"].clone()
    };
    assert_eq!(loss("eval reduced"), reduced["val_loss"]);
    assert_ne!(loss("eval reduced --decode full"), reduced["val_loss"]);
    assert_eq!(loss("eval full"), full["val_loss"]);
    // A picture goes the way of those that were held out.
    let probability = |run: &str, more: &str| {
        let line = format!("predict photos/narrow/01.jpg --run {run} --device cpu --json {more}");
        desk.json(&line, 0)[0]["classes"][0]["probability"].clone()
    };
    let by_reduced = probability("reduced", "");
    let saved = std::fs::read_to_string(desk.path("reduced/inputs.json")).expect("saved");
    std::fs::write(desk.path("reduced/inputs.json"), saved.replace("\"reduced\"", "\"full\""))
        .expect("writes");
    assert_ne!(probability("reduced", ""), by_reduced);
}

#[test]
fn reduced_sizes_are_refused_where_there_are_none() {
    let desk = Desk::new();
    photographs(&desk);
    let reduced = format!("{PHOTOS} --decode reduced").replace("--json ", "");
    if cfg!(feature = "turbojpeg") {
        let parts = ["--decode: found reduced with --cache", "try one of the two"];
        desk.refused(&format!("{reduced} --cache ram"), 2, &parts);
    } else {
        desk.refused(&reduced, 2, &["--decode reduced: this build", "--features turbojpeg"]);
    }
    desk.run(&format!("{PHOTOS} --decode half"), 2);
}

#[test]
fn what_prepares_batches_is_found_or_given_and_told() {
    let desk = Desk::new();
    photographs(&desk);
    let input = |more: &str| {
        let done = desk.json(&format!("{PHOTOS} {more}"), 0).pop().expect("events");
        done["input"].clone()
    };
    let found = input("--no-eval");
    assert_eq!(found["found"], serde_json::json!(["workers", "slots", "readers"]));
    assert_eq!((&found["slots"], &found["ring"]), (&3.into(), &6.into()), "nothing was seen yet");
    assert!(found["readers"].is_u64() && found["ahead_hits"].is_u64(), "{found}");
    let given = input("--no-eval --workers 3 --slots 4 --readers 5 --cache ram");
    assert_eq!(given["found"], Value::Array(vec![]));
    let numbers = ["workers", "slots", "ring", "readers"].map(|name| given[name].as_u64());
    assert_eq!(numbers, [3, 4, 4, 5].map(Some));
    // 18 photographs of two epochs: each is read once, and found in the cache once, unless a batch of the second epoch was
    // begun before the first one's last was there.
    let [hits, misses] = ["hits", "misses"].map(|name| given["cache"][name].as_u64());
    assert_eq!((hits.zip(misses).map(|(hits, misses)| hits + misses)), Some(36));
    assert!(hits > Some(8) && misses >= Some(18), "{given}");
    let (_, words) = desk.run(&PHOTOS.replace("--json", "--slots 2 --workers 2 --readers 0"), 0);
    assert!(words.contains("input: workers 2 · slots 2 of 2 · budget"), "{words}");
    // What lies in memory is read by nobody ahead.
    let resident = desk.train("").pop().expect("events")["input"].clone();
    assert_eq!(resident["found"], serde_json::json!(["workers", "slots"]));
    assert_eq!((&resident["readers"], &resident["ahead_hits"]), (&Value::Null, &Value::Null));
}
