use std::fs;
use std::sync::Arc;

use super::*;
use crate::source::{Dataset, OpenOptions, Viewer, open};

/// Writes a picture of one colour.
fn picture(path: &Path, width: u32, height: u32, shade: u8) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("creates");
    image::RgbImage::from_pixel(width, height, image::Rgb([shade, 10, 20]))
        .save(path)
        .expect("saves");
}

fn open_with(root: &Path, data: DataConfig) -> Result<Dataset> {
    let options = OpenOptions { data: Some(&data), ..Default::default() };
    open(root.to_str().expect("UTF-8"), &options)
}

fn refusal(root: &Path) -> String {
    open_with(root, DataConfig::default()).map(|_| ()).expect_err("cannot be opened").to_string()
}

/// Names of a source's files below `root`, with their classes.
fn listing(source: &dyn Source, root: &Path) -> Vec<(String, u32)> {
    let name = |i| {
        let origin = source.origin(i).expect("a file");
        let below = Path::new(&origin).strip_prefix(root).expect("below the root").to_owned();
        (below.to_string_lossy().replace('\\', "/"), source.class(i).expect("a class"))
    };
    (0..source.len()).map(name).collect()
}

#[test]
fn classes_and_files_have_a_stable_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path();
    for name in [
        "train/cat/b.PNG",
        "train/cat/a.png",
        "train/cat/more/z.png",
        "train/ant/9.png",
        "val/cat/1.png",
        "test/ant/1.png",
    ] {
        let lower = root.join(name.to_lowercase());
        picture(&lower, 8, 6, 100);
        fs::rename(&lower, root.join(name)).expect("renames");
    }
    for (name, text) in [
        ("LICENSE", "mine"),
        ("train/LICENSE", "mine"),
        ("train/cat/notes.txt", "x"),
        ("train/cat/._a.png", "mac"),
    ] {
        fs::write(root.join(name), text).expect("writes");
    }
    let found = open_with(root, DataConfig::default()).expect("a folder of images");
    let expected = [
        ("train/ant/9.png", 0),
        ("train/cat/a.png", 1),
        ("train/cat/b.PNG", 1),
        ("train/cat/more/z.png", 1),
    ];
    assert_eq!(
        listing(&*found.train, root),
        expected.map(|(name, class)| (name.to_owned(), class))
    );
    assert_eq!(found.train.info().class_names, ["ant", "cat"]);
    assert_eq!(found.train.spec().input_shape, [3, 6, 8], "the size that all have");
    let held_out = |source: Option<Arc<dyn Source>>| listing(&*source.expect("held out"), root);
    // Classes are those of the training part, whichever folders a held-out part has.
    assert_eq!(held_out(found.validation), [("val/cat/1.png".to_owned(), 1)]);
    assert_eq!(held_out(found.test), [("test/ant/1.png".to_owned(), 0)]);
    // A part alone is a data set as well.
    let part = open_with(&root.join("train"), DataConfig::default()).expect("a folder of images");
    assert_eq!((part.train.len(), part.test.is_none()), (4, true));
}

#[test]
fn folders_of_parts_are_told_by_their_names() {
    let root_of = |names: &[&str]| {
        let dir = tempfile::tempdir().expect("a folder");
        names.iter().for_each(|name| picture(&dir.path().join(name), 8, 6, 100));
        dir
    };
    let opened = |names: &[&str]| {
        let dir = root_of(names);
        open_with(dir.path(), DataConfig::default()).expect("a folder of images")
    };
    let found =
        opened(&["Training/cat/1.png", "Training/dog/1.png", "Testing/dog/1.png", "VAL/cat/1.png"]);
    assert_eq!(found.train.info().class_names, ["cat", "dog"]);
    assert_eq!((found.train.len(), found.test.map(|test| test.len())), (2, Some(1)));
    assert_eq!(found.validation.map(|validation| validation.len()), Some(1));
    // Among others such a name may be that of a class.
    let found = opened(&["exam/1.png", "test/1.png"]);
    assert_eq!(found.train.info().class_names, ["exam", "test"]);
    let found = opened(&["Bus/1.png", "Train/1.png"]);
    assert_eq!(found.train.info().class_names, ["Bus", "Train"]);
    let dir = root_of(&["test/cat/1.png", "val/cat/1.png"]);
    let error = refusal(dir.path());
    assert!(error.contains("found only ") && error.contains("expected a folder train"), "{error}");
    let dir = root_of(&["train/cat/1.png", "test/cat/1.png", "Testing/cat/1.png"]);
    let error = refusal(dir.path());
    assert!(error.contains("found a second folder of the part "), "{error}");
}

#[test]
fn the_shape_is_what_is_asked_for_or_what_the_files_have() {
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path();
    let shape = |data| open_with(root, data).expect("opens").train.spec().input_shape.clone();
    image::GrayImage::from_pixel(7, 5, image::Luma([9]))
        .save({
            fs::create_dir(root.join("a")).expect("creates");
            root.join("a/1.png")
        })
        .expect("saves");
    assert_eq!(shape(DataConfig::default()), [1, 5, 7]);
    assert_eq!(shape(DataConfig { channels: Some(3), ..Default::default() }), [3, 5, 7]);
    picture(&root.join("a/2.jpg"), 9, 5, 1);
    assert_eq!(shape(DataConfig::default()), [3, 224, 224]);
    let data = DataConfig { image_size: Some(32), channels: Some(1), ..Default::default() };
    assert_eq!(shape(data.clone()), [1, 32, 32]);
    let source = open_with(root, data).expect("opens").train;
    assert_eq!(source.info().mean.len(), 1);
    let mut viewer = Viewer::default();
    assert_eq!(viewer.read(&*source, 1).expect("decodes").input.len(), 32 * 32);
}

#[test]
fn files_are_told_by_content_and_named_when_they_cannot_be_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path();
    picture(&root.join("a/1.png"), 8, 8, 70);
    // A PNG by content, a text, nothing at all, and half a JPEG.
    fs::copy(root.join("a/1.png"), root.join("a/2.jpg")).expect("copies");
    fs::write(root.join("a/3.jpg"), "no image").expect("writes");
    fs::write(root.join("a/4.jpg"), "").expect("writes");
    picture(&root.join("a/5.jpg"), 64, 64, 70);
    let whole = fs::read(root.join("a/5.jpg")).expect("reads");
    fs::write(root.join("a/5.jpg"), &whole[..whole.len() - 20]).expect("writes");
    let source = open_with(root, DataConfig::default()).expect("opens").train;
    let mut viewer = Viewer::default();
    let png = viewer.read(&*source, 0).expect("a PNG").input.to_vec();
    assert_eq!(viewer.read(&*source, 1).expect("a PNG").input, png);
    for (index, name, expected) in [
        (2, "3.jpg", "found bytes of no known format, expected JPEG"),
        (3, "4.jpg", "found an empty file"),
        (4, "5.jpg", "cut short"),
    ] {
        let error = viewer.read(&*source, index).expect_err("no image").to_string();
        assert!(error.contains(name) && error.contains(expected), "{error}");
    }
}

#[test]
fn files_that_change_during_the_run_are_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path();
    for i in 1..=3 {
        picture(&root.join(format!("a/{i}.png")), 8, 8, 70);
    }
    let source = open_with(root, DataConfig::default()).expect("opens").train;
    let mut scratch = Vec::new();
    for i in 0..3 {
        source.read(i, &mut scratch).expect("is there");
    }
    fs::remove_file(root.join("a/1.png")).expect("removes");
    fs::write(root.join("a/2.png"), "shorter").expect("writes");
    for (i, name) in [(0, "1.png"), (1, "2.png")] {
        let error = source.read(i, &mut scratch).expect_err("has changed").to_string();
        assert!(error.contains(name) && error.contains("changed during the run"), "{error}");
    }
    source.read(2, &mut scratch).expect("is as it was");
    let error = source.read(3, &mut scratch).expect_err("is not there").to_string();
    assert!(error.contains("expected below 3"), "{error}");
}

#[test]
fn what_is_no_folder_of_images_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path();
    fs::create_dir(root.join("a")).expect("creates");
    fs::write(root.join("a/notes.txt"), "x").expect("writes");
    assert!(refusal(root).contains("a folder of images for each class"), "{}", refusal(root));
    picture(&root.join("train/cat/1.png"), 4, 4, 1);
    fs::create_dir(root.join("train/dog")).expect("creates");
    let error = refusal(root);
    assert!(error.contains("dog") && error.contains("found no image in it"), "{error}");
    picture(&root.join("train/dog/1.png"), 4, 4, 1);
    picture(&root.join("test/mouse/1.png"), 4, 4, 1);
    let error = refusal(root);
    assert!(error.contains("mouse") && error.contains("without training images"), "{error}");
    let data = DataConfig { classes: Some(1), ..Default::default() };
    let error = open_with(&root.join("train"), data).map(|_| ()).expect_err("too few classes");
    assert_eq!(error.kind().exit_code(), 2, "{error}");
}

#[cfg(unix)]
mod unix {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn links_are_followed_but_not_in_circles() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path().join("data");
        picture(&root.join("a/1.png"), 4, 4, 1);
        picture(&dir.path().join("elsewhere/2.png"), 4, 4, 1);
        symlink(dir.path().join("elsewhere"), root.join("a/linked")).expect("links");
        symlink(dir.path().join("elsewhere/2.png"), root.join("a/3.png")).expect("links");
        let found = open_with(&root, DataConfig::default()).expect("opens");
        assert_eq!(found.train.len(), 3);
        symlink("..", root.join("a/linked/back")).expect("links");
        symlink(&root, dir.path().join("elsewhere/up")).expect("links");
        let error = refusal(&root);
        assert!(error.contains("leads back into itself"), "{error}");
    }

    #[test]
    fn names_need_not_be_text_and_folders_must_be_readable() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path();
        picture(&root.join("a/1.png"), 4, 4, 1);
        let odd = root.join("a").join(OsStr::from_bytes(b"\xff\xfe.png"));
        if fs::copy(root.join("a/1.png"), &odd).is_ok() {
            let source = open_with(root, DataConfig::default()).expect("opens").train;
            let mut scratch = Vec::new();
            source.read(1, &mut scratch).expect("a file of an odd name");
            fs::remove_file(odd).expect("removes");
        }
        let closed = root.join("a/closed");
        fs::create_dir(&closed).expect("creates");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("closes");
        // Root may read everything.
        if fs::read_dir(&closed).is_err() {
            let error = refusal(root);
            assert!(error.contains("closed") && error.contains("read permission"), "{error}");
        }
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("opens");
    }
}
