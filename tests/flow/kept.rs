//! `--cache`: later epochs neither read nor decode, the bytes stay the same, and limits hold.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use inflight::batch::{DType, SampleSpec, TargetSpec};
use inflight::pipeline::Preparation;
use inflight::source::cache::{Budget, CacheCounts, CacheKind, Cached};
use inflight::source::supply::Supply;
use inflight::source::{DataConfig, Dataset, Encoding, OpenOptions, open};
use inflight::source::{Sample, Source, SourceInfo, Target};
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

/// Eight pictures of two classes in a folder, and a list of them beside it.
fn pictures(dir: &Path) {
    let mut list = String::from("path,label\n");
    for i in 0..8 {
        let path = format!("photos/{}/{i}.bmp", ["cat", "dog"][i % 2]);
        fs::create_dir_all(dir.join(&path).parent().unwrap()).unwrap();
        picture(&dir.join(&path), i as u8);
        list += &format!("{path},{}\n", ["cat", "dog"][i % 2]);
    }
    fs::write(dir.join("list.csv"), list).unwrap();
}

/// A picture of one colour; of whichever, its file is as long.
fn picture(path: &Path, grey: u8) {
    image::GrayImage::from_pixel(6, 6, image::Luma([grey])).save(path).unwrap();
}

/// The batches of an epoch over the training part of a data set, as they come with a cache.
fn batches(dataset: Dataset, path: &Path, dir: &Path, cache: CacheKind) -> Arrived {
    let len = dataset.train.len();
    let supply = Supply {
        origin: Some((path.into(), String::new())),
        readers: Some(0),
        ..supply(cache, 1 << 30, dir)
    };
    let source = preparation(dataset.train, 2, 2);
    let preparation = Preparation { validation: dataset.validation, supply, ..source };
    let arrived = run(agenda(len, 2, len / 2), preparation, 3, |_| ());
    assert_eq!((&arrived.error, arrived.steps.len()), (&None, len / 2));
    arrived
}

fn opened(path: &Path) -> Dataset {
    let data = DataConfig { image_size: Some(6), ..Default::default() };
    let options = OpenOptions { data: Some(&data), offline: true, ..Default::default() };
    open(path.to_str().unwrap(), &options).unwrap()
}

#[test]
fn what_is_kept_is_not_taken_for_other_samples_of_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    pictures(dir.path());
    for name in ["photos", "list.csv"] {
        let path = dir.path().join(name);
        let split = |seed| opened(&path).split(0.25, seed).unwrap();
        let all = [opened(&path), split(1), split(2), split(3)];
        let epoch = |dataset: &Dataset, cache| batches(dataset.clone(), &path, dir.path(), cache);
        let expected = all.each_ref().map(|dataset| epoch(dataset, CacheKind::Off));
        assert!(expected[1..].iter().any(|split| *split != expected[1]), "splits differ");
        let found = all.each_ref().map(|dataset| epoch(dataset, CacheKind::Disk));
        assert!(found == expected, "{name}");
    }
}

#[test]
fn pictures_of_a_list_that_changed_are_decoded_again() {
    let dir = tempfile::tempdir().unwrap();
    pictures(dir.path());
    let list = dir.path().join("list.csv");
    let epoch = |cache| batches(opened(&list), &list, dir.path(), cache);
    let before = epoch(CacheKind::Disk);
    assert!(before == epoch(CacheKind::Off));
    let path = dir.path().join("photos/cat/4.bmp");
    let meta = fs::metadata(&path).unwrap();
    picture(&path, 200);
    // The time of a change may be told in coarse steps.
    let later = meta.modified().unwrap() + std::time::Duration::from_secs(1);
    fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), meta.len());
    let after = epoch(CacheKind::Disk);
    assert!(after != before && after == epoch(CacheKind::Off));
}

fn files(dir: &Path, ending: &str) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir.join("decoded")).unwrap().map(|entry| entry.unwrap().path());
    let folders = entries.filter(|path| path.is_dir());
    folders.map(|folder| folder.join(format!("train.{ending}"))).collect()
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
