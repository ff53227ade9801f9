//! `--cache`: later epochs neither read nor decode, the bytes stay the same, and limits hold.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use inflight::batch::{DType, SampleSpec, TargetSpec};
use inflight::pipeline::Preparation;
use inflight::source::cache::{Budget, CacheCounts, CacheKind, Cached};
use inflight::source::supply::Supply;
use inflight::source::{Encoding, Sample, Source, SourceInfo, Target};
use inflight::transform::{HorizontalFlip, PadCrop, RandomResizedCrop, Transform};
use inflight::{Error, Result};

use crate::bed::{Arrived, Hooked, agenda, preparation, run};

/// Image files of different sizes, all in memory; counts how often they are read.
struct Pictures {
    files: Vec<Vec<u8>>,
    spec: SampleSpec,
    info: SourceInfo,
    reads: Arc<AtomicUsize>,
}

impl Pictures {
    fn new(len: usize, channels: usize) -> Self {
        let file = |i: usize| {
            let size = [20 + (i * 7 % 13) as u32, 17 + (i * 5 % 11) as u32];
            let pixel = |x: u32, y: u32| {
                image::Rgb([(x * 9 + i as u32) as u8, (y * 11) as u8, (x * y) as u8])
            };
            let picture = image::RgbImage::from_fn(size[0], size[1], pixel);
            let mut bytes = std::io::Cursor::new(Vec::new());
            picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
            bytes.into_inner()
        };
        Self {
            files: (0..len).map(file).collect(),
            spec: SampleSpec {
                input_shape: vec![channels, 12, 14],
                input_dtype: DType::U8,
                target: TargetSpec::Class { classes: 1000 },
            },
            info: SourceInfo { name: "pictures".into(), ..Default::default() },
            reads: Arc::default(),
        }
    }
}

impl Source for Pictures {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn spec(&self) -> &SampleSpec {
        &self.spec
    }

    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn encoding(&self) -> Encoding {
        Encoding::Image
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        self.reads.fetch_add(1, SeqCst);
        scratch.clear();
        scratch.extend_from_slice(&self.files[index]);
        Ok(Sample { input: scratch, target: Target::Class(index as u32) })
    }
}

const LEN: usize = 40;

fn supply(cache: CacheKind, bytes: u64, dir: &Path) -> Supply {
    if !dir.join("data").exists() {
        fs::write(dir.join("data"), "as it was").unwrap();
    }
    Supply {
        cache,
        cache_bytes: Some(bytes),
        origin: Some((dir.join("data"), String::new())),
        cache_dir: Some(dir.join("decoded")),
        ..Supply::default()
    }
}

/// Three epochs; what arrived and how often files were read.
fn epochs(supply: Supply, transformed: bool, channels: usize, workers: usize) -> (Arrived, usize) {
    let source = Pictures::new(LEN, channels);
    let reads = source.reads.clone();
    let transforms: Vec<Box<dyn Transform>> = match transformed {
        true => vec![
            Box::new(RandomResizedCrop::default()),
            Box::new(HorizontalFlip::default()),
            Box::new(PadCrop { padding: 1, ..Default::default() }),
        ],
        false => Vec::new(),
    };
    let preparation =
        Preparation { transforms, supply, ..preparation(Arc::new(source), 8, workers) };
    let arrived = run(agenda(LEN, 8, 3 * LEN / 8), preparation, 3, |_| ());
    (arrived, reads.load(SeqCst))
}

#[test]
fn a_cache_changes_no_bit_and_saves_every_later_read() {
    for (transformed, channels) in [(true, 3), (false, 3), (true, 1), (false, 1)] {
        let expected = epochs(Supply::default(), transformed, channels, 1);
        assert_eq!((expected.0.steps.len(), expected.1), (15, 3 * LEN));
        let dir = tempfile::tempdir().unwrap();
        for (kind, reads) in [(CacheKind::Ram, LEN), (CacheKind::Disk, LEN), (CacheKind::Disk, 0)] {
            let found = epochs(supply(kind, 1 << 30, dir.path()), transformed, channels, 3);
            assert_eq!(found.0, expected.0, "{kind:?}");
            // A later run finds on disk what this one has kept.
            assert_eq!(found.1, reads, "{kind:?}");
        }
    }
}

#[test]
fn data_that_changed_are_decoded_again() {
    let dir = tempfile::tempdir().unwrap();
    let supply = supply(CacheKind::Disk, 1 << 30, dir.path());
    assert_eq!(epochs(supply.clone(), false, 3, 2).1, LEN);
    let other = Supply { origin: Some((dir.path().join("data"), "grey".into())), ..supply.clone() };
    assert_eq!(epochs(other, false, 3, 2).1, LEN);
    fs::write(dir.path().join("data"), "as it is now").unwrap();
    assert_eq!(epochs(supply, false, 3, 2).1, LEN);
}

fn files(dir: &Path, ending: &str) -> Vec<std::path::PathBuf> {
    let folders = fs::read_dir(dir.join("decoded")).unwrap();
    folders.map(|folder| folder.unwrap().path().join(format!("train.{ending}"))).collect()
}

#[test]
fn what_is_damaged_is_made_again() {
    let expected = epochs(Supply::default(), true, 3, 1).0;
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage, usize); 6] = [
        ("pixels", |bytes| bytes.truncate(bytes.len() / 2), 2),
        ("pixels", |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1), LEN),
        ("pixels", Vec::clear, LEN),
        ("index", |bytes| bytes.truncate(bytes.len() - 7), 1),
        ("index", |bytes| bytes[3] ^= 1, 1),
        ("index", |bytes| bytes.extend_from_slice(&[0xff; 95]), 0),
    ];
    for (ending, damage, least) in damages {
        let dir = tempfile::tempdir().unwrap();
        let supply = supply(CacheKind::Disk, 1 << 30, dir.path());
        epochs(supply.clone(), true, 3, 2);
        let [path] = &files(dir.path(), ending)[..] else { panic!("one folder") };
        let mut bytes = fs::read(path).unwrap();
        damage(&mut bytes);
        fs::write(path, bytes).unwrap();
        let (arrived, reads) = epochs(supply, true, 3, 2);
        assert_eq!(arrived, expected, "{ending}");
        assert!(reads >= least, "{ending}: {reads} reads, expected at least {least}");
    }
}

#[test]
fn limits_hold_and_what_is_kept_stays() {
    let one = 20 * 17 * 3;
    for (kind, room) in [(CacheKind::Ram, 10), (CacheKind::Disk, 10), (CacheKind::Ram, 0)] {
        let dir = tempfile::tempdir().unwrap();
        let bytes = room * one;
        let (_, reads) = epochs(supply(kind, bytes, dir.path()), false, 3, 2);
        // The same samples hit in both later epochs: an eviction by age would never hit.
        let misses = reads - LEN;
        assert!(misses.is_multiple_of(2), "{misses}");
        let kept = LEN - misses / 2;
        assert!(
            kept <= room as usize && (room == 0 || kept > 2),
            "{kept} kept, {room} times the smallest"
        );
        if kind == CacheKind::Disk {
            let length = |path: &std::path::PathBuf| fs::metadata(path).unwrap().len();
            let on_disk: u64 = ["pixels", "index"]
                .iter()
                .flat_map(|ending| files(dir.path(), ending))
                .map(|path| length(&path))
                .sum();
            assert!(on_disk > 0 && on_disk <= bytes, "{on_disk} of {bytes}");
        }
    }
}

#[test]
fn hits_are_counted_and_budgets_shared() {
    let budget = Budget::new(1 << 20);
    let before = budget.left();
    let a = Cached::ram(Arc::new(Pictures::new(5, 3)), budget.clone()).unwrap();
    let b = Cached::ram(Arc::new(Hooked::new(5)), budget.clone()).unwrap();
    let mut scratch = Vec::new();
    for _ in 0..3 {
        for index in 0..5 {
            a.read(index, &mut scratch).unwrap();
            assert_eq!(b.read(index, &mut scratch).unwrap().target, Target::Class(index as u32));
        }
    }
    assert_eq!(a.counts(), CacheCounts { hits: 10, misses: 5 });
    assert_eq!(b.counts(), CacheCounts { hits: 10, misses: 5 });
    assert!(budget.left() < before - 5 * 20 * 17 * 3);
}

#[test]
fn a_sample_that_fails_is_not_kept() {
    let source = Hooked::new(5).on_read(|index| match index {
        3 => Err(Error::data("here", "fails")),
        _ => Ok(()),
    });
    let cached = Cached::ram(Arc::new(source), Budget::new(1 << 20)).unwrap();
    let mut scratch = Vec::new();
    for _ in 0..2 {
        cached.read(3, &mut scratch).unwrap_err();
    }
    assert_eq!(cached.counts(), CacheCounts { hits: 0, misses: 2 });
}
