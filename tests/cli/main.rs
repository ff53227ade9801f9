//! The command line as a user sees it: what it prints where, its exit codes, its one-line errors.

mod browser;
#[path = "../common/browser.rs"]
mod chromium;
mod data;
mod live;
mod machine;
mod pictures;
#[path = "../common/program.rs"]
mod program;
mod report;
mod resumed;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A folder to run in, and the command line in it.
struct Desk {
    dir: TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, line: &str) -> Command {
        program::command(self.dir.path(), line)
    }

    #[track_caller]
    fn run(&self, line: &str, code: i32) -> (String, String) {
        let Output { status, stdout, stderr } = self.command(line).output().expect("starts");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let (stdout, stderr) = (text(stdout), text(stderr));
        assert_eq!(status.code(), Some(code), "{line}\n{stdout}\n{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        (stdout, stderr)
    }

    /// What a command that succeeds prints to stdout.
    #[track_caller]
    fn ok(&self, line: &str) -> String {
        self.run(line, 0).0
    }

    /// The lines of JSON of a command that succeeds; nothing else may be on stdout.
    #[track_caller]
    fn json(&self, line: &str, code: i32) -> Vec<Value> {
        let (stdout, _) = self.run(line, code);
        stdout.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// The error of a command that fails: exactly one line, with all of `parts`.
    #[track_caller]
    fn refused(&self, line: &str, code: i32, parts: &[&str]) {
        let (stdout, stderr) = self.run(line, code);
        assert_eq!(stdout, "", "{line}");
        let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{line}\n{stderr}");
        assert_eq!(stderr.lines().last(), Some(errors[0]), "the error comes last\n{stderr}");
        for part in parts {
            assert!(errors[0].contains(part), "{part} is not in {}", errors[0]);
        }
    }

    /// A folder with a pair of IDX files of 20 samples of 4 × 4 pixels.
    fn idx(&self, magic: [u8; 4], pixels: usize, label: u8) {
        let dir = self.path("idx");
        std::fs::create_dir_all(&dir).expect("a folder");
        let size = |n: u32| n.to_be_bytes();
        let images = [&magic[..], &size(20), &size(4), &size(4), &vec![7; pixels]].concat();
        let labels = [&[0, 0, 8, 1][..], &size(20), &[label; 20]].concat();
        std::fs::write(dir.join("train-images-idx3-ubyte"), images).expect("writes");
        std::fs::write(dir.join("train-labels-idx1-ubyte"), labels).expect("writes");
    }

    /// Trains 20 steps on the pictures that lie beside the code.
    fn train(&self, more: &str) -> Vec<Value> {
        self.json(&format!("train fashion-mnist-10k {SMALL} --steps 20 {more}"), 0)
    }
}

const SMALL: &str = "--model mlp --batch-size 50 --lr 0.001 --device cpu --json";

/// The magic number of IDX images.
const IMAGES: [u8; 4] = [0, 0, 8, 3];

fn events<'a>(all: &'a [Value], event: &str) -> Vec<&'a Value> {
    all.iter().filter(|value| value["event"] == event).collect()
}

#[test]
fn help_and_usage() {
    let desk = Desk::new();
    let help = desk.ok("--help");
    for command in ["train", "eval", "predict", "devices", "inspect", "fetch", "model"] {
        assert!(help.contains(&format!("  {command} ")), "{help}");
        desk.ok(&format!("{command} --help"));
    }
    assert!(desk.ok("--version").starts_with("inflight "));
    desk.run("", 2);
    desk.run("train", 2);
    desk.run("train fashion-mnist-10k --batchsize 3", 2);
    desk.run("train fashion-mnist-10k --lr fast", 2);
}

#[test]
fn wrong_settings_are_one_line_and_exit_2() {
    let desk = Desk::new();
    let train = |flags: &str, parts: &[&str]| {
        desk.refused(&format!("train fashion-mnist-10k --device cpu {flags}"), 2, parts);
    };
    train(
        "--lr nan",
        &["config: --lr: found NaN, expected a finite number above 0; try --lr 0.001"],
    );
    train("--lr inf", &["--lr: found inf"]);
    train("--lr -1", &["--lr: found -1"]);
    train("--batch-size 0", &["--batch-size: found 0, expected at least 1"]);
    train("--epochs 0", &["--epochs: found 0"]);
    train("--epochs 1 --steps 1", &["--steps", "--epochs"]);
    train("--slots 1", &["--slots: found 1, expected at least 2"]);
    train("--precision f8", &["--precision: found f8, expected f32 or f16"]);
    train("--optimizer sdg", &["sdg", "sgd, adam, adamw, muon"]);
    train("--schedule cosin", &["cosin", "cosine"]);
    train("--momentum 0.9", &["--momentum", "adamw"]);
    train("--transforms blur:sigma=0", &["config: transform blur: sigma: found [0, 0]"]);
    train("--eval-transforms flip", &["--eval-transforms flip: found flip, expected one of blur"]);
    train(
        "--transforms center-crop:size=30",
        &["center_crop: size", "at most the images' 28 x 28"],
    );
    train("--mean 0.5", &["--mean: found 1 means and 0 deviations"]);
    train("--mean 0.5,0.5 --std 1,1", &["--mean: found 2 numbers, expected 1"]);
    train("--model vgg", &["vgg", "mlp, cnn"]);
    train("--max-slot-bytes 1000", &["--batch-size", "expected at most 1000 (max_slot_bytes)"]);
    train("--batch-size 8001 --drop-last", &["8001"]);
    train("--resume", &["runs", "no run of fashion-mnist-10k"]);
    assert!(!desk.path("runs").exists(), "a run that could not start leaves no folder");
    std::fs::write(desk.path("run.toml"), "lr = 0.1\nbatchsize = 3").expect("writes");
    desk.refused("train run.toml", 2, &["run.toml:2: unknown field `batchsize`"]);
    desk.refused("train nosuch.toml", 2, &["nosuch.toml"]);
}

#[test]
fn damaged_data_is_one_line_and_exits_3() {
    let desk = Desk::new();
    let refused = |parts: &[&str]| desk.refused("train idx --model mlp --device cpu", 3, parts);
    desk.idx(IMAGES, 20 * 16 - 1, 3);
    refused(&["train-images-idx3-ubyte", "cut short", "found 319 bytes", "expected 320"]);
    desk.idx([0, 0, 13, 3], 20 * 16, 3);
    refused(&["train-images-idx3-ubyte"]);
    desk.idx(IMAGES, 20 * 16, 10);
    refused(&["train-labels-idx1-ubyte", "found label 10 at sample 0", "below 10"]);
    std::fs::remove_file(desk.path("idx/train-labels-idx1-ubyte")).expect("removes");
    refused(&["train-images-idx3-ubyte", "labels"]);
    desk.refused("inspect nosuch", 3, &["nosuch", "fashion-mnist"]);
    desk.refused("fetch nosuch", 3, &["nosuch"]);
}

#[test]
fn a_model_that_does_not_fit_exits_2() {
    let desk = Desk::new();
    let layers = "[[model.layers]]\ntype = \"conv2d\"\nout = 4\nkernel = 30\n\
                  [[model.layers]]\ntype = \"flatten\"\n[[model.layers]]\ntype = \"linear\"\nout = \"classes\"";
    std::fs::write(desk.path("wide.toml"), layers).expect("writes");
    let wide = "train fashion-mnist-10k --model wide.toml --device cpu";
    desk.refused(wide, 2, &["graph: net.0", "30"]);
    let three = layers.replace("out = \"classes\"", "out = 3").replace("30", "3");
    std::fs::write(desk.path("three.toml"), three).expect("writes");
    let three = "train fashion-mnist-10k --model three.toml --device cpu";
    desk.refused(three, 2, &["net.2", "[3]", "expected [10]"]);
}

#[test]
fn mixed_precision_tells_its_loss_scale() {
    let desk = Desk::new();
    let all = desk.train("--precision f16");
    let loss = |i: usize| events(&all, "step")[i]["loss"].as_f64().expect("a number");
    assert!(loss(19) < 0.8 * loss(0), "{} {}", loss(0), loss(19));
    let done = all.last().expect("events");
    assert_eq!((&done["skipped"], &done["loss_scale"]), (&0.into(), &65536.0.into()));
    assert_eq!(desk.train("").last().expect("events")["loss_scale"], Value::Null);
}

#[test]
fn a_device_that_is_not_there_exits_4() {
    let desk = Desk::new();
    for device in ["gpu:99", "nosuch"] {
        let line = format!("train fashion-mnist-10k --model mlp --steps 1 --device {device}");
        desk.refused(&line, 4, &[&format!("--device {device}")]);
    }
    let left = std::fs::read_dir(desk.path("runs")).into_iter().flatten().count();
    assert_eq!(left, 0, "a run that could not start leaves no folder");
}

#[test]
fn training_tells_its_events_and_leaves_its_folder() {
    let desk = Desk::new();
    let all = desk.train("--out here");
    let steps = events(&all, "step");
    assert_eq!(steps.len(), 20);
    for (i, step) in steps.iter().enumerate() {
        assert_eq!(step["step"], i as u64 + 1);
        assert!(step["loss"].as_f64().is_some_and(f64::is_finite), "{step}");
        assert_eq!((&step["lr"], &step["samples"]), (&0.001.into(), &50.into()));
    }
    let loss = |i: usize| steps[i]["loss"].as_f64().expect("a number");
    assert!(loss(19) < 0.8 * loss(0), "{} {}", loss(0), loss(19));
    let done = all.last().expect("events");
    assert_eq!(
        (&done["event"], &done["steps"], &done["samples"]),
        (&"done".into(), &20.into(), &1000.into())
    );
    for key in ["train_s", "samples_per_s", "val_loss", "val_accuracy", "time_to_first_step_s"] {
        assert!(done[key].as_f64().is_some_and(f64::is_finite), "{key}: {done}");
    }
    assert!(done["val_accuracy"].as_f64() > Some(0.4), "{done}");
    assert_eq!(done["run_dir"], "here");
    assert_eq!(done["device"]["kind"], "twins");
    for key in ["disk", "decode", "augment", "upload", "gpu", "launch", "compile"] {
        assert!(done["verdict"]["time_s"][key].is_number(), "{key}: {done}");
    }
    let file = |name: &str| std::fs::read_to_string(desk.path("here").join(name)).expect(name);
    assert_eq!(file("metrics.jsonl").lines().count(), 20);
    let verdict: Value = serde_json::from_str(&file("verdict.json")).expect("JSON");
    assert_eq!(verdict, done["verdict"]);
    assert!(file("config.toml").contains("dataset = \"fashion-mnist-10k\""));
    assert!(Path::new(&desk.path("here/checkpoints/step-20/model.safetensors")).exists());
    desk.refused(
        "train fashion-mnist-10k --steps 1 --device cpu --out here",
        2,
        &["--out", "already holds a run", "--resume"],
    );
}

#[test]
fn a_config_repeats_a_run_and_flags_override_it() {
    let desk = Desk::new();
    let first = desk.train("--seed 5 --workers 1");
    let done = |all: &[Value]| all.last().expect("events").clone();
    let dir = done(&first)["run_dir"].as_str().expect("a folder").to_string();
    let again = desk.json(&format!("train {dir}/config.toml --json"), 0);
    assert_ne!(done(&again)["run_dir"], dir.as_str());
    assert_eq!(done(&again)["parameter_hash"], done(&first)["parameter_hash"]);
    let other = desk.json(&format!("train {dir}/config.toml --seed 6 --json"), 0);
    assert_ne!(done(&other)["parameter_hash"], done(&first)["parameter_hash"]);
}

#[cfg(unix)]
#[test]
fn a_signal_saves_and_exits_75() {
    use std::io::{BufRead, BufReader};

    let desk = Desk::new();
    let line = format!("train fashion-mnist-10k {SMALL} --epochs 50 --out long");
    let mut child = desk.command(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.as_mut().expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    lines.nth(3).expect("a fourth step").expect("a line");
    // SAFETY: `kill` only sends a signal, to a child that was not waited for yet.
    let sent = unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
    assert_eq!(sent, 0);
    let rest: Vec<String> = lines.map(|line| line.expect("a line")).collect();
    assert_eq!(child.wait().expect("ends").code(), Some(75));
    let done: Value = serde_json::from_str(rest.last().expect("events")).expect("JSON");
    assert_eq!((&done["event"], &done["stopped"]), (&"done".into(), &true.into()));
    let step = done["steps"].as_u64().expect("a number");
    assert!(desk.path(&format!("long/checkpoints/step-{step}/manifest.json")).exists());
    let rest = desk.json(&format!("train --resume long --steps {} --json", step + 2), 0);
    assert_eq!(events(&rest, "step")[0]["step"], step + 1);
}

#[test]
fn eval_and_predict_use_what_was_trained() {
    let desk = Desk::new();
    let trained = desk.train("");
    let done = trained.last().expect("events");
    let run = done["run_dir"].as_str().expect("a folder");
    let evaluated = desk.json(&format!("eval {run} --device cpu --json"), 0);
    assert_eq!(evaluated[0]["samples"], 2000);
    assert_eq!(evaluated[0]["accuracy"], done["val_accuracy"]);
    let file = format!("{run}/checkpoints/step-20/model.safetensors");
    let train =
        desk.ok(&format!("eval {file} --dataset fashion-mnist-10k --split train --device cpu"));
    assert!(train.contains("(train): loss") && train.contains("8,000 samples"), "{train}");
    desk.refused("eval nosuch --dataset fashion-mnist-10k", 6, &["nosuch"]);
    let misfit = format!("eval {file} --model cnn --device cpu");
    desk.refused(&misfit, 6, &["net."]);

    let sneaker = picture_of(&desk, 7);
    let found = desk.json(&format!("predict {sneaker} {sneaker} --top 10 --device cpu --json"), 0);
    assert_eq!(found.len(), 2);
    let classes = found[0]["classes"].as_array().expect("classes");
    let sum: f64 = classes.iter().filter_map(|c| c["probability"].as_f64()).sum();
    assert!((sum - 1.0).abs() < 1e-6 && classes.len() == 10, "{sum}");
    let footwear = ["Sandal", "Sneaker", "Ankle boot"];
    let name = classes[0]["name"].as_str().expect("a name");
    assert!(footwear.contains(&name), "{name} of {footwear:?}");
    let text = desk.ok(&format!("predict {sneaker} --run {run} --device cpu"));
    assert!(text.starts_with("sneaker.png: ") && text.contains(" %"), "{text}");
    desk.refused("predict nosuch.png --device cpu", 3, &["nosuch.png"]);
}

#[test]
fn what_a_run_was_evaluated_with_is_what_eval_and_predict_use() {
    let desk = Desk::new();
    let done = |all: &[Value]| all.last().expect("events").clone();
    let plain = done(&desk.train("--out plain"));
    let list = "vertical-flip:probability=1,normalize:mean=[0.4]:std=[0.3]";
    let turned = done(&desk.train(&format!("--out turned --eval-transforms {list}")));
    let config = std::fs::read_to_string(desk.path("turned/config.toml")).expect("saved");
    assert!(config.contains("[[eval_transforms]]") && config.contains("mean = [0.4"), "{config}");
    assert_ne!(turned["val_loss"], plain["val_loss"]);
    let eval = |line: &str| desk.json(&format!("eval {line} --device cpu --json"), 0)[0].clone();
    assert_eq!(eval("turned")["accuracy"], turned["val_accuracy"]);
    assert_eq!(eval("plain")["accuracy"], plain["val_accuracy"]);
    let upright = eval("turned --eval-transforms horizontal-flip:probability=0");
    assert!(upright["loss"].as_f64() < eval("turned")["loss"].as_f64(), "{upright}");
    let shifted = eval("turned --mean 0.1 --std 0.3");
    assert_ne!(shifted["loss"], eval("turned")["loss"]);
    // Only the evaluation is upside down, so that the weights are those of a run with the same normalisation.
    let same = done(&desk.train("--out same --mean 0.4 --std 0.3"));
    assert_eq!(same["parameter_hash"], turned["parameter_hash"]);
    assert_ne!(same["parameter_hash"], plain["parameter_hash"]);
    let sneaker = picture_of(&desk, 7);
    let picture = image::open(desk.path(sneaker)).expect("a picture");
    picture.flipv().save(desk.path("upside.png")).expect("saves");
    let predict = |run: &str, file: &str| {
        let line = format!("predict {file} --run {run} --top 10 --device cpu --json");
        desk.json(&line, 0)[0]["classes"].clone()
    };
    assert_eq!(predict("turned", "upside.png"), predict("same", sneaker));
    assert_ne!(predict("turned", sneaker), predict("same", sneaker));
}

/// Saves the first training picture of a class as PNG.
fn picture_of(desk: &Desk, class: u32) -> &'static str {
    use inflight::source::{self, OpenOptions, Target};

    let dataset = source::open("fashion-mnist-10k", &OpenOptions::default()).expect("in-tree");
    let mut scratch = Vec::new();
    for index in 0..dataset.train.len() {
        let sample = dataset.train.read(index, &mut scratch).expect("a sample");
        if sample.target == Target::Class(class) {
            let picture =
                image::GrayImage::from_raw(28, 28, sample.input.to_vec()).expect("28 × 28");
            picture.save(desk.path("sneaker.png")).expect("saves");
            return "sneaker.png";
        }
    }
    panic!("no sample of class {class}");
}

#[test]
fn a_dry_run_shows_the_plan_and_leaves_nothing() {
    let desk = Desk::new();
    let plan = desk.json(&format!("train fashion-mnist-10k {SMALL} --dry-run"), 0);
    assert_eq!(plan[0]["event"], "plan");
    assert_eq!(plan[0]["model_parameters"], 669_706);
    assert_eq!((&plan[0]["steps"], &plan[0]["steps_per_epoch"]), (&800.into(), &160.into()));
    assert!(plan[0]["ring_bytes"].as_u64() > Some(3 * 50 * 784));
    assert!(plan[0]["step_bytes"].as_u64() > plan[0]["arena_bytes"].as_u64());
    assert!(!desk.path("runs").exists());
    let text = desk.ok("train fashion-mnist-10k --device cpu --dry-run");
    assert!(text.contains("8,000 training and 2,000 test samples"), "{text}");
    assert!(text.contains("a step: moves at least"), "{text}");
    let train =
        "train fashion-mnist-10k --model cnn --batch-size 256 --device cpu --dry-run --json";
    let bytes = |line: &str| desk.json(line, 0)[0]["activation_bytes"].as_u64();
    assert!(bytes(&format!("{train} --recompute")) < bytes(train));
    let train =
        format!("{train} --transforms horizontal-flip,random-resized-crop,pad-crop --augment");
    let sides = |side: &str| {
        let plan = &desk.json(&format!("{train} {side}"), 0)[0];
        (plan["transforms_on_workers"].clone(), plan["transforms_on_device"].clone())
    };
    let [flip, crop, pad] = ["horizontal_flip", "random_resized_crop", "pad_crop"];
    assert_eq!(sides("device"), (vec![flip, crop].into(), vec![pad].into()));
    assert_eq!(sides("workers"), (vec![flip, crop, pad].into(), Value::Array(vec![])));
    let text = desk.ok(&train.replace("--json ", "").replace("--augment", "--augment device"));
    let line =
        "transforms: horizontal_flip, random_resized_crop on the workers · pad_crop on the device";
    assert!(text.contains(line), "{text}");
}

#[test]
fn inspect_shows_counts_and_draws_a_sheet() {
    let desk = Desk::new();
    let found = desk.json("inspect fashion-mnist-10k --json --sheet sheet.png", 0);
    let train = &found[0]["splits"][0];
    assert_eq!((&train["split"], &train["samples"]), (&"train".into(), &8000.into()));
    let counts = train["label_counts"].as_array().expect("counts");
    assert_eq!(counts.iter().filter_map(Value::as_u64).sum::<u64>(), 8000);
    assert!((train["mean"][0].as_f64().expect("a mean") - 0.286).abs() < 0.01, "{train}");
    let sheet = image::open(desk.path("sheet.png")).expect("a picture");
    assert!(sheet.width() > 16 * 28 && sheet.height() > 10 * 28);
    let text = desk.ok("inspect fashion-mnist-10k");
    assert!(
        text.contains("train: 8,000 samples of 1 × 28 × 28") && text.contains("Ankle boot"),
        "{text}"
    );
}

#[test]
fn inspect_shows_samples_as_they_reach_the_device() {
    let desk = Desk::new();
    let sheet = |more: &str| {
        desk.ok(&format!("inspect fashion-mnist-10k --sheet sheet.png --transformed {more}"));
        image::open(desk.path("sheet.png")).expect("a picture").to_rgb8()
    };
    let list = "--transforms pad-crop,rotation:degrees=30,cutout:size=6:fill=255";
    let (first, again, other) = (sheet(list), sheet(list), sheet(&format!("{list} --seed 1")));
    assert_eq!(first.dimensions(), (9 * 58 + 2 + 8, 10 * 58 + 2));
    assert!(first == again, "the same seed draws the same");
    // Tiles of 28 pixels, doubled, two pixels apart, and a wider gap after the first.
    let tile = |sheet: &image::RgbImage, row: u32, column: u32| {
        let (x, y) = (2 + column * 58 + 8 * column.min(1), 2 + row * 58);
        image::imageops::crop_imm(sheet, x, y, 56, 56).to_image()
    };
    let plain = sheet("");
    for row in 0..10 {
        assert!(tile(&first, row, 0) == tile(&other, row, 0), "row {row}: the sample itself");
        for column in 1..9 {
            let [this, that] = [&first, &other].map(|sheet| tile(sheet, row, column));
            assert!(this != that, "row {row}, column {column}: another seed draws anew");
            assert!(
                this != tile(&first, row, column - 1),
                "row {row}, column {column}: epochs differ"
            );
            assert!(
                tile(&plain, row, column) == tile(&plain, row, 0),
                "without transforms all are alike"
            );
        }
    }
    let flat = "inspect fashion-mnist-10k --sheet sheet.png --transformed --transforms";
    desk.refused(&format!("{flat} blur:sigma=0"), 2, &["transform blur: sigma: found [0, 0]"]);
    desk.refused(&format!("{flat} center-crop:size=30"), 2, &["at most the images' 28 x 28"]);
    desk.run("inspect fashion-mnist-10k --transforms blur", 2);
}

#[test]
fn devices_models_and_data_sets_are_listed() {
    let desk = Desk::new();
    let devices = desk.json("devices --json", 0);
    assert_eq!((&devices[0]["selector"], &devices[0]["kind"]), (&"cpu".into(), &"twins".into()));
    assert!(desk.ok("devices").starts_with("cpu: "));
    let model = desk.json("model show cnn --json", 0);
    assert_eq!(model[0]["tensors"][0]["name"], "net.0.weight");
    assert_eq!(model[0]["tensors"][0]["shape"], serde_json::json!([16, 1, 3, 3]));
    let text = desk.ok("model show mlp --input-shape 3,32,32 --classes 5");
    assert!(text.contains("net.0.weight") && text.contains("512 × 3072"), "{text}");
    let images = "--input-shape 3,32,32 --json";
    let counts = ["resnet18", "vit-tiny"].map(|name| {
        let model = desk.json(&format!("model show {name} {images}"), 0);
        model[0]["parameter_count"].as_u64()
    });
    assert_eq!(counts, [Some(11_173_962), Some(5_362_762)]);
    desk.refused("model show cnn --input-shape 784", 2, &["graph: cnn", "784"]);
    desk.refused("model show cnn --input-shape 0,1,1", 2, &["--input-shape"]);
    assert!(desk.ok("fetch").contains("fashion-mnist: "));
}

#[test]
fn bench_times_steps_beside_their_floor() {
    let desk = Desk::new();
    let lines = desk.json("bench train --device cpu --model mlp --batch-size 2 --quick --json", 0);
    let [row, done] = &lines[..] else { panic!("a row and the end, found {lines:#?}") };
    assert_eq!((&row["event"], &row["suite"]), (&"bench".into(), &"train".into()));
    assert_eq!(row["name"], "mlp/2/f32");
    for key in ["median_s", "low_s", "high_s", "flops", "bytes", "achieved", "ceiling", "share"] {
        assert!(row[key].as_f64() > Some(0.0), "{key} in {row}");
    }
    assert_eq!((&done["event"], &done["rows"]), (&"done".into(), &1.into()));
    assert!(done["ceilings"]["bytes_per_s"].as_f64() > Some(0.0), "{done}");
    desk.refused("bench train --device cpu --model vgg --quick", 2, &["vgg", "mlp"]);
}

#[test]
fn tuning_changes_times_and_no_bit_and_a_second_start_takes_none() {
    if !inflight::gpu::adapters().iter().any(|adapter| adapter.name.contains("llvmpipe")) {
        assert!(
            std::env::var("REQUIRE_GPU").is_err(),
            "REQUIRE_GPU is set and there is no adapter"
        );
        return eprintln!("SKIPPED: no adapter to tune on");
    }
    let desk = Desk::new();
    let train = |tune: &str| {
        let line = "train fashion-mnist-10k --model mlp --batch-size 16 --steps 2 --no-eval \
                    --device llvmpipe --json --tune";
        let mut command = desk.command(&format!("{line} {tune}"));
        let output = command.env("XDG_CACHE_HOME", desk.path("cache")).output().expect("starts");
        let text = String::from_utf8_lossy(&output.stdout);
        let done = text.lines().last().unwrap_or_else(|| panic!("{output:?}"));
        let done: Value = serde_json::from_str(done).expect("JSON");
        let hash = done["parameter_hash"].as_str().expect("a hash").to_string();
        (hash, done["device"]["tuned"].as_u64().expect("a count"))
    };
    let (off, none) = train("off");
    let (first, some) = train("fast");
    let (second, again) = train("fast");
    let (full, more) = train("full");
    assert_eq!((none, again), (0, 0));
    assert!(some > 0 && more > 0, "{some} and {more} variants timed");
    assert_eq!([&first, &second, &full], [&off; 3]);
}
