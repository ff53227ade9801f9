//! The guide, chapter by chapter, so that its programs are compiled and run with the doc tests. The same text is under
//! `docs/guide/`, where its pictures and links work without building anything.
#![doc = include_str!("../docs/guide/index.md")]

#[doc = include_str!("../docs/guide/first_run.md")]
pub mod first_run {}

#[doc = include_str!("../docs/guide/your_data.md")]
pub mod your_data {}

#[doc = include_str!("../docs/guide/what_held_it_back.md")]
pub mod what_held_it_back {}

#[doc = include_str!("../docs/guide/watching.md")]
pub mod watching {}

#[doc = include_str!("../docs/guide/comparing.md")]
pub mod comparing {}

#[doc = include_str!("../docs/guide/language.md")]
pub mod language {}

#[doc = include_str!("../docs/guide/library.md")]
pub mod library {}

#[doc = include_str!("../docs/guide/own_data.md")]
pub mod own_data {}

#[doc = include_str!("../docs/guide/own_model.md")]
pub mod own_model {}
