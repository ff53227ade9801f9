//! Data sets by name: the one in-tree, its statistics and its contact sheet.

use inflight::batch::{DType, SampleSpec, TargetSpec};
use inflight::source::{OpenOptions, Source, Subset, Synthetic, contact_sheet, open, statistics};
use tempfile::tempdir;

use crate::read_all;

const OFFLINE: OpenOptions<'static> = OpenOptions {
    offline: true,
    cache_dir: None,
    data: None,
    fitted: None,
    on_progress: None,
    seed: 0,
};

#[test]
fn the_small_fashion_mnist_lies_in_tree_and_splits_as_its_manifest_says() {
    let dataset = open("fashion-mnist-10k", &OFFLINE).unwrap();
    let test = dataset.test.expect("a test split");
    assert_eq!((dataset.train.len(), test.len()), (8000, 2000));
    assert_eq!(dataset.train.info().name, "fashion-mnist-10k (train)");
    assert_eq!(test.info().name, "fashion-mnist-10k (test)");
    assert_eq!(dataset.train.info().class_names[9], "Ankle boot");
    // Labels of the original file: it begins 9 2 1 1 6 1 4 6 5 7, and 1000 of each class are in it.
    let first: Vec<u32> = read_all(&*dataset.train).iter().take(10).map(|s| s.1).collect();
    assert_eq!(first, [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]);
    let (a, b) = (statistics(&*dataset.train).unwrap(), statistics(&*test).unwrap());
    assert!(a.label_counts.iter().zip(&b.label_counts).all(|(a, b)| a + b == 1000));
    assert_eq!((a.min, a.max, a.samples), (0.0, 1.0, 8000));
    // The published moments are of the 60,000 others.
    assert!((a.mean[0] - 0.2860).abs() < 0.005 && (a.std[0] - 0.3530).abs() < 0.005, "{a:?}");
    let folder = crate::open_path(&dataset.path).unwrap();
    assert_eq!(folder.train.len(), 10_000);
}

#[test]
fn statistics_are_those_of_the_definition_and_of_any_number_of_threads() {
    let spec = |input_dtype| SampleSpec {
        input_shape: vec![3, 5, 7],
        input_dtype,
        target: TargetSpec::Class { classes: 4 },
    };
    for dtype in [DType::U8, DType::F32] {
        let source = Synthetic::new(1000, spec(dtype), 5).unwrap();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| statistics(&source)).unwrap()
        };
        let found = with(1);
        assert_eq!(found, with(2));
        assert_eq!(found, with(5));
        let samples = read_all(&source);
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for channel in 0..3 {
            let values: Vec<f64> = samples
                .iter()
                .flat_map(|(input, _)| match dtype {
                    DType::U8 => {
                        input[35 * channel..][..35].iter().map(|&b| f64::from(b) / 255.0).collect()
                    }
                    _ => input[140 * channel..][..140]
                        .chunks_exact(4)
                        .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
                        .collect::<Vec<f64>>(),
                })
                .collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let variance =
                values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
            assert!((found.mean[channel] - mean).abs() < 1e-9, "{found:?}");
            assert!((found.std[channel] - variance.sqrt()).abs() < 1e-9, "{found:?}");
            least = values.iter().copied().fold(least, f64::min);
            most = values.iter().copied().fold(most, f64::max);
        }
        assert_eq!((found.min, found.max), (least, most));
        assert_eq!(found.label_counts.iter().sum::<u64>(), 1000);
    }
}

#[test]
fn pictures_a_pixel_wide_are_shown_that_wide() {
    let spec = SampleSpec {
        input_shape: vec![1, 1000, 1],
        input_dtype: DType::U8,
        target: TargetSpec::Class { classes: 1 },
    };
    let sheet = contact_sheet(&Synthetic::new(3, spec, 5).unwrap(), 3).unwrap();
    // Two pixels around each.
    assert_eq!(sheet.width(), 3 * (1 + 2) + 2);
    assert!(sheet.height() < 1000, "{}", sheet.height());
}

#[test]
fn a_contact_sheet_shows_each_class_in_its_row() {
    let dataset = open("fashion-mnist-10k", &OFFLINE).unwrap();
    let sheet = contact_sheet(&*dataset.train, 10).unwrap();
    assert_eq!(sheet.dimensions(), (2 + 10 * 58, 2 + 10 * 58));
    // The first sample is an ankle boot, enlarged twice, at the start of the last row.
    let (input, class) = read_all(&*dataset.train).swap_remove(0);
    assert_eq!(class, 9);
    for (at, &pixel) in input.iter().enumerate() {
        let (x, y) = (2 + 2 * (at % 28) as u32, 2 + 9 * 58 + 2 * (at / 28) as u32);
        assert_eq!(sheet.get_pixel(x, y).0, [pixel; 3]);
        assert_eq!(sheet.get_pixel(x + 1, y + 1).0, [pixel; 3]);
    }
    let table = Synthetic::new(
        4,
        SampleSpec {
            input_shape: vec![8],
            input_dtype: DType::F32,
            target: TargetSpec::Values { len: 1 },
        },
        0,
    );
    assert_eq!(
        contact_sheet(&table.unwrap(), 3).unwrap_err().to_string(),
        "source: synthetic: found samples of shape [8], expected images [channels, height, width]"
    );
}

#[test]
fn a_data_set_that_is_not_here_is_not_fetched_offline() {
    let cache = tempdir().unwrap();
    let error =
        open("mnist", &OpenOptions { cache_dir: Some(cache.path()), ..OFFLINE }).err().unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "source: mnist: is not on this machine (looked in {}); try inflight fetch mnist",
            cache.path().join("mnist").display()
        )
    );
}

#[test]
fn a_subset_ends_where_it_says() {
    let dataset = open("fashion-mnist-10k", &OFFLINE).unwrap();
    let error = Subset::new(dataset.train.clone(), 7990..8001, "too much").err().unwrap();
    assert_eq!(
        error.to_string(),
        "source: too much: found 8000 samples, expected samples 7990..8001"
    );
    let subset = Subset::new(dataset.train.clone(), 7990..8000, "last").unwrap();
    let mut scratch = Vec::new();
    assert!(subset.read(10, &mut scratch).is_err());
    assert!(subset.read(9, &mut scratch).is_ok());
}
