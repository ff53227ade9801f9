//! Transforms beside torchvision's `transforms.v2.functional` on the same pictures
//! (`tests/pixels/make_transform_reference.py`), and what a run that uses them relies on.
//!
//! How close each operation must come:
//! - flips, crops, pads, boxes, posterize, solarize, equalize, autocontrast, brightness: every byte the same.
//! - nearest neighbours: the same, except where the place lies so near the middle between two pixels that rounding in
//!   `f32`, as torchvision computes it, may choose either: there one of both.
//! - resizing, bilinear neighbours, blur, contrast, saturation, sharpness, grey, hue: at most one level more or less,
//!   since sums in `f32` depend on their order and on fused multiply-adds, and the results are then cut or rounded to
//!   whole levels; and that at one byte in ten at most.

use std::path::Path;

use inflight::batch::{DType, SampleSpec, Slot, SlotLayout, TargetSpec};
use inflight::prepare::{Keys, StageCounters, fill};
use inflight::rng::Rng;
use inflight::source::resident::{Inputs, Targets};
use inflight::source::{Resident, SourceInfo, Viewer};
use inflight::transform::functional as f;
use inflight::transform::{
    Fill, Image, ImageMemory, Interpolation, PadCrop, PadMode, Transform, TransformConfig,
};
use inflight::{Result, RunConfig};
use serde_json::Value;

/// A picture or a result: `[channels, height, width]` and its planes.
#[derive(Clone)]
struct Picture {
    shape: [usize; 3],
    planes: Vec<u8>,
}

impl Picture {
    /// What `change` makes of it.
    fn changed(&self, change: impl FnOnce(&mut Image<'_>) -> Result<()>) -> Picture {
        let mut memory = ImageMemory::default();
        let mut image = Image::raw(self.shape, &self.planes, &mut memory);
        change(&mut image).expect("the picture is whole");
        let shape @ [channels, ..] = image.shape();
        let pixels = image.pixels().expect("the picture is whole");
        let plane = |c: usize| pixels.iter().skip(c).step_by(channels).copied();
        Picture { shape, planes: (0..channels).flat_map(plane).collect() }
    }
}

/// The reference: cases, and the pixels that they lie in.
struct Reference {
    json: Value,
    bytes: Vec<u8>,
    colour: Picture,
    grey: Picture,
}

impl Reference {
    fn load() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pixels/transforms");
        let open = |name: &str| image::open(folder.join(name)).expect("lies in-tree");
        let colour = open("colour.png").to_rgb8();
        let (width, height) = (colour.width() as usize, colour.height() as usize);
        let planes = (0..3).flat_map(|c| colour.pixels().map(move |p| p.0[c])).collect();
        let colour = Picture { shape: [3, height, width], planes };
        let grey = open("grey.png").to_luma8();
        let shape = [1, grey.height() as usize, grey.width() as usize];
        let grey = Picture { shape, planes: grey.into_raw() };
        let text = std::fs::read_to_string(folder.join("cases.json")).expect("lies in-tree");
        let json = serde_json::from_str(&text).expect("JSON");
        Self { json, bytes: open("results.png").to_luma8().into_raw(), colour, grey }
    }

    fn cases(&self) -> Vec<Case> {
        let case = |case: &Value| {
            let shape: [usize; 3] = serde_json::from_value(case["shape"].clone()).expect("a shape");
            let at = case["offset"].as_u64().expect("an offset") as usize;
            let planes = self.bytes[at..at + shape.iter().product::<usize>()].to_vec();
            let picture = if case["picture"] == "grey" { &self.grey } else { &self.colour };
            let operation = case["operation"].as_str().expect("a name").to_owned();
            let numbers = case["numbers"].clone();
            Case {
                operation,
                numbers,
                picture: picture.clone(),
                expected: Picture { shape, planes },
            }
        };
        self.json["cases"].as_array().expect("cases").iter().map(case).collect()
    }
}

struct Case {
    operation: String,
    numbers: Value,
    picture: Picture,
    expected: Picture,
}

impl Case {
    fn number(&self, name: &str) -> f64 {
        self.numbers[name].as_f64().unwrap_or_else(|| panic!("{name} of {}", self.numbers))
    }

    fn count(&self, name: &str) -> usize {
        self.number(name) as usize
    }

    fn pair(&self, name: &str) -> [f64; 2] {
        serde_json::from_value(self.numbers[name].clone()).expect("two numbers")
    }

    fn fill(&self) -> Fill {
        match self.numbers["fill"].as_array().map(Vec::as_slice) {
            Some([byte]) => Fill::Same(byte.as_u64().expect("a byte") as u8),
            Some(_) => serde_json::from_value(self.numbers["fill"].clone()).expect("three bytes"),
            None => Fill::Same(self.count("fill") as u8),
        }
    }

    fn interpolation(&self) -> Interpolation {
        serde_json::from_value(self.numbers["interpolation"].clone()).expect("a known one")
    }

    /// What the crate makes of the picture; `shift` moves the places that pixels are read from.
    fn run(&self, shift: [f64; 2]) -> Picture {
        let [_, height, width] = self.picture.shape;
        self.picture.changed(|image| match self.operation.as_str() {
            "horizontal_flip" => f::horizontal_flip(image),
            "vertical_flip" => f::vertical_flip(image),
            "center_crop" => {
                f::center_crop(image, self.pair("output_size").map(|side| side as usize))
            }
            "resize" => apply(&format!("resize:size={}", self.size()), image),
            "pad_crop" => {
                let mode: PadMode =
                    serde_json::from_value(self.numbers["mode"].clone()).expect("a known one");
                let pad = PadCrop { padding: self.count("padding"), mode, fill: self.fill() };
                f::pad_crop(image, [self.count("top"), self.count("left")], pad)
            }
            "erase" => {
                let [top, left] = [self.count("top"), self.count("left")];
                let [height, width] = [self.count("height"), self.count("width")];
                f::erase(image, f::Patch { top, left, height, width }, self.fill())
            }
            "rotate" => {
                let angle = self.number("angle");
                let map = f::Affine { angle: -angle, ..Default::default() };
                if shift == [0.0; 2] {
                    return f::rotate(image, angle, self.interpolation(), self.fill());
                }
                let matrix = moved(map.matrix(height, width), shift);
                f::warp(image, matrix, self.interpolation(), self.fill())
            }
            "affine" => {
                let [angle, translate] = [[self.number("angle"); 2], self.pair("translate")];
                let (shear, center) = (self.pair("shear"), Some(self.pair("center")));
                let map = f::Affine { angle: angle[0], translate, shear, center };
                let matrix = moved(map.matrix(height, width), shift);
                f::warp(image, matrix, self.interpolation(), self.fill())
            }
            "gaussian_blur" => f::blur(image, self.count("kernel_size"), self.number("sigma")),
            "adjust_brightness" => f::adjust_brightness(image, self.number("factor")),
            "adjust_contrast" => f::adjust_contrast(image, self.number("factor")),
            "adjust_saturation" => f::adjust_saturation(image, self.number("factor")),
            "adjust_sharpness" => f::adjust_sharpness(image, self.number("factor")),
            "adjust_hue" => f::adjust_hue(image, self.number("factor")),
            "rgb_to_grayscale" => f::grayscale(image),
            "posterize" => f::posterize(image, self.count("bits") as u32),
            "solarize" => f::solarize(image, self.number("threshold")),
            "autocontrast" => f::autocontrast(image),
            "equalize" => f::equalize(image),
            "rand_augment" => {
                let negative = self.numbers["negative"] == true;
                let (place, magnitude) = (self.count("place") as u64, self.count("magnitude"));
                let operation = f::Operation::new(place, magnitude, [height, width], negative);
                operation.apply(image, Interpolation::Nearest, Fill::Same(0))
            }
            other => panic!("no operation {other}"),
        })
    }

    fn size(&self) -> String {
        let size = self.numbers["size"].as_array().expect("a list");
        if size.len() == 1 { size[0].to_string() } else { self.numbers["size"].to_string() }
    }

    /// Whether pixels come from the one nearest to a computed place.
    fn is_nearest(&self) -> bool {
        let moves = ["ShearX", "ShearY", "Rotate"];
        self.numbers["interpolation"] == "nearest"
            || moves.iter().any(|name| self.numbers["name"] == *name)
    }

    /// Levels that a byte may differ by.
    fn tolerance(&self) -> u8 {
        let exact = [
            "horizontal_flip",
            "vertical_flip",
            "center_crop",
            "pad_crop",
            "erase",
            "adjust_brightness",
            "posterize",
            "solarize",
            "autocontrast",
            "equalize",
        ];
        let inexact = ["Color", "Contrast", "Sharpness"];
        let augment = self.operation == "rand_augment"
            && !inexact.iter().any(|name| self.numbers["name"] == *name);
        u8::from(!exact.contains(&&*self.operation) && !augment && !self.is_nearest())
    }
}

/// Applies a transform of a list.
fn apply(text: &str, image: &mut Image<'_>) -> Result<()> {
    let transforms = TransformConfig::parse_list("--transforms", text)?;
    let build = |config: &TransformConfig| config.build().expect("does something");
    transforms.iter().map(build).try_for_each(|t| t.apply(image, &mut Rng::keyed(&[1])))
}

fn moved(matrix: f::Matrix, [x, y]: [f64; 2]) -> f::Matrix {
    let [a, b, c, d, e, f] = matrix;
    [a, b, c + x, d, e, f + y]
}

/// Places within this many pixels of the middle between two may be rounded to either: `f32` has 24 bits, of which
/// torchvision's way to a place over -1 to 1 leaves about 2⁻¹⁷ for the pictures' 45 pixels.
const MIDDLE: f64 = 1e-5;

#[test]
fn operations_are_those_of_torchvision() {
    let reference = Reference::load();
    let mut failures = Vec::new();
    let cases = reference.cases();
    assert_eq!(cases.len(), 190);
    for case in &cases {
        let name = format!("{} {} {:?}", case.operation, case.numbers, case.picture.shape);
        let found = case.run([0.0; 2]);
        assert_eq!(found.shape, case.expected.shape, "{name}");
        let mut allowed = vec![found.clone()];
        if case.is_nearest() && case.operation != "rand_augment" {
            let corners =
                [[MIDDLE, MIDDLE], [MIDDLE, -MIDDLE], [-MIDDLE, MIDDLE], [-MIDDLE, -MIDDLE]];
            allowed.extend(corners.map(|shift| case.run(shift)));
        }
        let (mut off, mut worst) = (0, 0);
        for (i, &expected) in case.expected.planes.iter().enumerate() {
            let distance = allowed.iter().map(|picture| picture.planes[i].abs_diff(expected));
            let distance = distance.min().expect("at least one");
            off += usize::from(distance > 0);
            worst = worst.max(distance);
        }
        let len = found.planes.len();
        eprintln!("{name}: {off} of {len} bytes differ, by {worst} at most");
        if worst > case.tolerance() || off * 10 > len {
            failures.push(format!("{name}: {off} of {len} bytes, by {worst}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn magnitudes_are_those_of_torchvision() {
    let reference = Reference::load();
    let tables = &reference.json["tables"];
    let mut checked = 0;
    for (side, shifts) in tables["shifts"].as_object().expect("tables") {
        let side: usize = side.parse().expect("a side");
        for (magnitude, shift) in shifts.as_array().expect("31 numbers").iter().enumerate() {
            let shift = shift.as_f64().expect("whole pixels");
            let operation = |which| f::Operation::new(which, magnitude, [side, side], false);
            assert_eq!(operation(3), f::Operation::TranslateX(shift), "{side} {magnitude}");
            assert_eq!(operation(4), f::Operation::TranslateY(shift), "{side} {magnitude}");
            checked += 1;
        }
    }
    assert_eq!(checked, 8 * 31);
    for magnitude in 0..31 {
        let bits = tables["posterize"][magnitude].as_u64().expect("bits") as u32;
        let operation = |which| f::Operation::new(which, magnitude, [9, 9], true);
        assert_eq!(operation(10), f::Operation::Posterize(bits));
        let threshold = 255.0 * tables["solarize"][magnitude].as_f64().expect("a share");
        let f::Operation::Solarize(found) = operation(11) else { panic!("solarize") };
        assert!((found - threshold).abs() < 1e-12, "{found} {threshold}");
    }
}

/// Every transform that draws, in one list.
const ALL: &str = "resize:size=40,random-resized-crop:scale=[0.5,1],pad-crop:padding=3:mode=reflect,horizontal-flip,\
                   vertical-flip,rotation:degrees=20:interpolation=bilinear:fill=[1,2,3],\
                   color-jitter:brightness=0.4:contrast=0.4:saturation=0.4:hue=0.1,grayscale:probability=0.3,\
                   blur:kernel=5,rand-augment:operations=3,cutout:size=9,random-erasing,center-crop";

fn built(list: &str) -> Vec<Box<dyn Transform>> {
    let list = TransformConfig::parse_list("--transforms", list).expect("all are known");
    list.iter().filter_map(TransformConfig::build).collect()
}

/// A source of `len` copies of a picture.
fn copies(picture: &Picture, len: usize) -> Resident {
    let spec = SampleSpec {
        input_shape: picture.shape.to_vec(),
        input_dtype: DType::U8,
        target: TargetSpec::Class { classes: 1 },
    };
    let bytes = picture.planes.repeat(len);
    let info = SourceInfo { name: "copies".into(), ..Default::default() };
    Resident::new(spec, info, Inputs::Bytes(bytes), Targets::Classes(vec![0; len])).expect("fits")
}

#[test]
fn what_is_drawn_depends_on_keys_and_never_on_threads() {
    let reference = Reference::load();
    const SAMPLES: usize = 48;
    let source = copies(&reference.colour, SAMPLES);
    let transforms = built(ALL);
    let filled = |threads: usize, keys: Keys, order: Vec<usize>| {
        let layout = SlotLayout::new(inflight::source::Source::spec(&source), SAMPLES);
        let mut slot = Slot::host(0, layout.slot_bytes);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("starts");
        let times = StageCounters::default();
        let done =
            pool.install(|| fill(&mut slot, &layout, &source, &transforms, &order, keys, &times));
        done.expect("all samples are whole");
        let all = slot.bytes().expect("host memory").to_vec();
        let input = |i: usize| {
            all[layout.input_offset + i * layout.input_bytes..][..layout.input_bytes].to_vec()
        };
        (0..SAMPLES).map(input).collect::<Vec<_>>()
    };
    let keys = Keys { seed: 5, epoch: 2 };
    let order = || (0..SAMPLES).collect::<Vec<_>>();
    let one = filled(1, keys, order());
    assert!(one == filled(4, keys, order()), "threads changed what was drawn");
    let mut reversed = filled(4, keys, order().into_iter().rev().collect());
    reversed.reverse();
    assert!(one == reversed, "the order changed what was drawn");
    for other in [Keys { seed: 6, epoch: 2 }, Keys { seed: 5, epoch: 3 }] {
        let other = filled(1, other, order());
        let same = one.iter().zip(&other).filter(|(a, b)| a == b).count();
        assert_eq!(same, 0, "seed and epoch change every draw");
    }
    let distinct: std::collections::HashSet<_> = one.iter().collect();
    assert_eq!(distinct.len(), SAMPLES, "every copy is drawn anew");
    // What `inflight inspect` shows is what a run gets.
    let mut viewer = Viewer::of(built(ALL), 5);
    for (epoch, seen) in [(2, &one), (3, &filled(1, Keys { seed: 5, epoch: 3 }, order()))] {
        for (i, seen) in seen.iter().enumerate() {
            let shown = viewer.draw(&source, i, epoch).expect("all samples are whole");
            assert!(shown.input == seen, "sample {i} of epoch {epoch}");
        }
    }
}

#[test]
fn a_transform_that_comes_twice_draws_twice() {
    let reference = Reference::load();
    let source = copies(&reference.colour, 64);
    let mut viewer = Viewer::of(built("horizontal-flip, horizontal-flip"), 1);
    let mut turned = |i| {
        let shown = viewer.read(&source, i).expect("all samples are whole");
        shown.input != reference.colour.planes
    };
    let turned = (0..64).filter(|&i| turned(i)).count();
    assert!((16..48).contains(&turned), "{turned} of 64 were turned once");
}

#[test]
fn what_a_worker_did_before_changes_nothing() {
    // The same image through used and through fresh memory: nothing of an earlier one may shine through.
    let reference = Reference::load();
    let transforms = built(ALL);
    let mut used = ImageMemory::default();
    for key in 0..200 {
        let picture = if key % 3 == 0 { &reference.grey } else { &reference.colour };
        let list = if key % 3 == 0 {
            &built("rotation,blur,pad-crop,color-jitter:contrast=1")
        } else {
            &transforms
        };
        let run = |memory: &mut ImageMemory| {
            let mut image = Image::raw(picture.shape, &picture.planes, memory);
            for (place, transform) in list.iter().enumerate() {
                let mut rng = Rng::keyed(&[key, place as u64]);
                transform.apply(&mut image, &mut rng).expect("the picture is whole");
            }
            image.pixels().expect("decoded").to_vec()
        };
        assert!(run(&mut used) == run(&mut ImageMemory::default()), "image {key}");
    }
}

#[test]
fn wrong_settings_are_refused_by_name() {
    let refusal = |list: &str| {
        let parsed = TransformConfig::parse_list("--transforms", list);
        let checked =
            parsed.and_then(|transforms| RunConfig { transforms, ..Default::default() }.validate());
        checked.expect_err(list).to_string()
    };
    let cases = [
        (
            "blur:sigma=0",
            "config: transform blur: sigma: found [0, 0], expected [low, high] with low <= high, above 0",
        ),
        ("blur:sigma=[2,1]", "blur: sigma: found [2, 1]"),
        ("blur:kernel=4", "blur: kernel: found 4, expected an odd number up to 255"),
        ("blur:kernel=-3", "--transforms blur:kernel=-3: "),
        ("center-crop:size=0", "center_crop: size: found 0, expected 1 to 16384 pixels"),
        ("center-crop:size=-1", "expected a whole number of pixels or [height, width]"),
        ("color-jitter:hue=0.6", "color_jitter: hue: found 0.6, expected 0 to 0.5"),
        ("color-jitter:hue=[-0.7,0]", "color_jitter: hue: found [-0.7, 0]"),
        ("color-jitter:brightness=-1", "color_jitter: brightness: found -1, expected at least 0"),
        ("color-jitter:contrast=nan", "color_jitter: contrast: found NaN"),
        ("color-jitter:saturation=[-1,1]", "color_jitter: saturation: found [-1, 1]"),
        ("cutout:size=[0,3]", "cutout: size: found [0, 3]"),
        ("cutout:fill=300", "expected a byte (0 to 255) or a list of three"),
        ("grayscale:probability=2", "grayscale: probability: found 2, expected 0 to 1"),
        ("horizontal-flip:probability=-0.5", "horizontal_flip: probability: found -0.5"),
        ("vertical-flip:probability=nan", "vertical_flip: probability: found NaN"),
        ("pad-crop:padding=99999", "pad_crop: padding: found 99999"),
        ("pad-crop:mode=round", "constant"),
        ("rand-augment:magnitude=31", "rand_augment: magnitude: found 31, expected 0 to 30"),
        ("rand-augment:operations=0", "rand_augment: operations: found 0"),
        ("random-erasing:scale=[0.5,0.2]", "random_erasing: scale: found [0.5, 0.2]"),
        ("random-erasing:ratio=[0,1]", "random_erasing: ratio: found [0, 1]"),
        ("random-resized-crop:scale=[0,1]", "random_resized_crop: scale: found [0, 1]"),
        ("random-resized-crop:ratio=[1,inf]", "random_resized_crop: ratio: found [1, inf]"),
        ("resize:size=99999", "resize: size: found 99999"),
        ("rotation:degrees=1000", "rotation: degrees: found 1000"),
        ("rotation:interpolation=cubic", "nearest"),
        (
            "normalize:mean=[0.5]:std=[0]",
            "--std: found 0, expected numbers that are finite and above 0",
        ),
        ("normalize:mean=[0.5]", "missing field `std`"),
        ("sharpen", "found sharpen, expected one of blur, center_crop"),
    ];
    for (list, expected) in cases {
        let found = if list.starts_with("normalize") {
            match TransformConfig::parse_list("--transforms", list) {
                Ok(transforms) => {
                    let mut config = RunConfig { transforms, ..Default::default() };
                    config.settle();
                    config.validate().expect_err(list).to_string()
                }
                Err(error) => error.to_string(),
            }
        } else {
            refusal(list)
        };
        assert!(found.contains(expected), "{list}: {found}");
    }
}

#[test]
fn what_does_not_fit_the_data_is_refused_before_the_run() {
    let reference = Reference::load();
    let refusal = |list: &str, picture: &Picture| {
        let transforms = TransformConfig::parse_list("--transforms", list).expect("known");
        let source = copies(picture, 1);
        inflight::transform::check(&transforms, &source).map_err(|e| e.to_string())
    };
    let (colour, grey) = (&reference.colour, &reference.grey);
    let two = Picture { shape: [2, 10, 10], planes: vec![0; 200] };
    let crop = refusal("center-crop:size=50", colour).expect_err("is larger");
    assert_eq!(
        crop,
        "config: transform center_crop: size: found 50 x 50, expected at most the images' 38 x 45"
    );
    refusal("resize:size=50,center-crop:size=50", colour).expect("is large enough by then");
    refusal("resize:size=20,center-crop:size=30", colour).expect_err("is too small by then");
    refusal("center-crop:size=20,cutout:size=25", colour).expect_err("is too small by then");
    refusal("cutout:fill=[1,2,3]", colour).expect("three channels");
    let fill = refusal("cutout:fill=[1,2,3]", grey).expect_err("one channel");
    assert!(fill.contains("transform cutout: fill: found three bytes, expected one"), "{fill}");
    refusal("color-jitter:hue=0.1,grayscale,rand-augment", grey).expect("as torchvision does");
    let channels = refusal("color-jitter:brightness=0.1", &two).expect_err("no colours");
    assert!(channels.contains("color_jitter: channels: found 2"), "{channels}");
}

#[test]
fn normalize_in_a_list_is_a_setting_of_the_data() {
    let text = "transforms = [\"horizontal_flip\", { type = \"normalize\", mean = [0.5], std = [0.25] }]\n\
                eval_transforms = [\"center_crop\"]";
    let config = RunConfig::parse(text, "run.toml").expect("valid");
    config.validate().expect("valid");
    assert_eq!(config.data.mean, Some(vec![0.5]));
    assert_eq!(config.data.std, Some(vec![0.25]));
    assert_eq!((config.transforms.len(), config.eval_transforms.len()), (1, 1));
    let dir = tempfile::tempdir().expect("a temporary folder");
    config.save(dir.path()).expect("saves");
    let loaded = RunConfig::load(&dir.path().join("config.toml")).expect("loads");
    assert_eq!(
        (loaded.transforms, loaded.eval_transforms),
        (config.transforms, config.eval_transforms)
    );
    assert_eq!(loaded.data, config.data);
}

#[test]
fn every_setting_survives_a_file() {
    let transforms = TransformConfig::parse_list("--transforms", ALL).expect("known");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let config = RunConfig { transforms, ..Default::default() };
    config.validate().expect("valid");
    config.save(dir.path()).expect("saves");
    let loaded = RunConfig::load(&dir.path().join("config.toml")).expect("loads");
    assert_eq!(loaded.transforms, config.transforms);
}
