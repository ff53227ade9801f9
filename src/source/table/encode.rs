//! Rows as samples: the [`Source`] over a table, encoded by what was fitted.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::block::{Block, MISSING, Table};
use super::fit::fit;
use super::fitted::{FeatureEncoding, Fitted, FittedTarget};
use super::labels::{Asked, Labels, no_target};
use super::plan::RowPlan;
use crate::batch::SampleSpec;
use crate::error::Result;
use crate::source::resident::no_such_sample;
use crate::source::{Sample, Source, SourceInfo, Target};

/// The rows of a table as vectors `f32[features]`, with a class or a number each.
pub struct TabularSource {
    rows: Arc<Rows>,
    fitted: Arc<Fitted>,
    /// Whether the encoding was fitted to these rows, and may be fitted anew; else it came with a model.
    own: bool,
    steps: Vec<Step>,
    /// For each block in memory, for each of its columns: where a code of the block's vocabulary goes.
    places: Vec<Places>,
    /// The same of blocks that were loaded of late, the newest last.
    loaded: Mutex<Vec<Loaded>>,
    targets: Targets,
    spec: SampleSpec,
    info: SourceInfo,
}

/// A table, and what is made of it.
struct Rows {
    table: Table,
    plan: RowPlan,
    classes: Option<usize>,
    task_was_asked: bool,
    name: String,
}

enum Targets {
    Classes(Vec<u32>),
    Values(Vec<f32>),
    /// Rows to predict for: nothing is known.
    Unknown,
}

/// For each column, for each code, an element of the column's part of the vector, or [`NOWHERE`].
type Places = Vec<Vec<u32>>;

/// A block that was loaded, and where its codes go.
type Loaded = Arc<(Arc<Block>, Places)>;

/// Loaded blocks whose places are kept: one for each worker that is busy with another block.
const LOADED_MAX: usize = 16;

/// The place of a value without an element: all elements stay 0.
const NOWHERE: u32 = u32::MAX;

/// How a cell becomes elements, with everything worked out.
enum Step {
    /// `(x - mean) · scale` at `at`, and 1 at `missing` where there is no number.
    Number { at: usize, mean: f32, scale: f32, missing: Option<usize> },
    /// 1 at `at` plus the number of edges up to x.
    Buckets { at: usize, edges: Vec<f32>, missing: Option<usize> },
    /// 1 at `at` plus the place of the code.
    Category { at: usize, missing: Option<usize> },
}

impl Rows {
    fn fit(&self, kept: Option<&[bool]>) -> Result<Fitted> {
        let (count, classify) = (self.classes, self.task_was_asked);
        fit(&self.table, &self.plan, kept, &Asked { count, classify, ..Default::default() })
    }
}

impl TabularSource {
    /// All rows of a table, its encoding fitted to them.
    ///
    /// # Errors
    /// As [`fit`](super::fit()), and when a row has no target.
    pub(crate) fn fitted_to(
        table: Table,
        plan: RowPlan,
        classes: Option<usize>,
        task_was_asked: bool,
        name: String,
    ) -> Result<Self> {
        let rows = Rows { table, plan, classes, task_was_asked, name };
        let fitted = rows.fit(None)?;
        Self::new(Arc::new(rows), Arc::new(fitted), true)
    }

    /// All rows of a table, encoded as the training rows of a model were.
    ///
    /// # Errors
    /// When a row has no target, or one that the model does not know.
    pub(crate) fn encoded_by(
        table: Table,
        plan: RowPlan,
        fitted: Arc<Fitted>,
        name: String,
    ) -> Result<Self> {
        let rows = Rows { table, plan, classes: None, task_was_asked: true, name };
        Self::new(Arc::new(rows), fitted, false)
    }

    fn new(rows: Arc<Rows>, fitted: Arc<Fitted>, own: bool) -> Result<Self> {
        let table = &rows.table;
        let targets = targets(&rows, &fitted)?;
        let resident = (0..table.blocks()).map_while(|block| table.lend(block));
        let places = resident.map(|block| places(block, &fitted)).collect();
        let info = SourceInfo {
            name: rows.name.clone(),
            class_names: fitted.class_names().to_vec(),
            ..Default::default()
        };
        let (spec, steps) = (fitted.spec(), steps(&fitted));
        let loaded = Mutex::default();
        Ok(Self { rows, fitted, own, steps, places, loaded, targets, spec, info })
    }

    /// A block that is not always in memory, with the places of its codes.
    fn load(&self, number: usize) -> Result<Loaded> {
        let block = self.rows.table.block(number)?;
        let lock = || self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let found = lock().iter().find(|loaded| Arc::ptr_eq(&loaded.0, &block)).cloned();
        if let Some(found) = found {
            return Ok(found);
        }
        let places = places(&block, &self.fitted);
        let loaded = Arc::new((block, places));
        let mut kept = lock();
        if kept.len() == LOADED_MAX {
            kept.remove(0);
        }
        kept.push(loaded.clone());
        Ok(loaded)
    }

    fn encode(&self, row: &[u32], places: &Places, elements: &mut [f32]) {
        elements.fill(0.0);
        for ((step, &cell), places) in self.steps.iter().zip(row).zip(places) {
            match step {
                Step::Number { at, mean, scale, missing } => {
                    let x = f32::from_bits(cell);
                    if !x.is_nan() {
                        elements[*at] = (x - mean) * scale;
                    } else if let Some(missing) = missing {
                        elements[*missing] = 1.0;
                    }
                }
                Step::Buckets { at, edges, missing } => {
                    let x = f32::from_bits(cell);
                    if !x.is_nan() {
                        elements[at + edges.partition_point(|edge| *edge <= x)] = 1.0;
                    } else if let Some(missing) = missing {
                        elements[*missing] = 1.0;
                    }
                }
                Step::Category { at, missing } => {
                    if cell == MISSING {
                        if let Some(missing) = missing {
                            elements[*missing] = 1.0;
                        }
                    } else if places[cell as usize] != NOWHERE {
                        elements[at + places[cell as usize] as usize] = 1.0;
                    }
                }
            }
        }
    }
}

/// Works out where the elements of each column lie.
fn steps(fitted: &Fitted) -> Vec<Step> {
    let mut next = 0;
    let step = |feature: &super::Feature| {
        let at = next;
        next += feature.encoding.width();
        let last = |missing: bool| missing.then_some(next - 1);
        match &feature.encoding {
            FeatureEncoding::Number { mean, std, missing } => Step::Number {
                at,
                mean: *mean as f32,
                scale: (1.0 / std) as f32,
                missing: last(*missing),
            },
            FeatureEncoding::Buckets { edges, missing } => {
                Step::Buckets { at, edges: edges.clone(), missing: last(*missing) }
            }
            FeatureEncoding::Categories { missing, .. } => {
                Step::Category { at, missing: last(*missing) }
            }
        }
    };
    fitted.features.iter().map(step).collect()
}

/// Where the codes of a block go.
fn places(block: &Block, fitted: &Fitted) -> Places {
    let column = |(feature, vocabulary): (&super::Feature, &Vec<String>)| {
        let FeatureEncoding::Categories { values, shared, .. } = &feature.encoding else {
            return Vec::new();
        };
        let own: HashMap<&str, usize> = values.iter().map(String::as_str).zip(0..).collect();
        let place = |value: &String| match own.get(value.as_str()) {
            Some(&place) => place as u32,
            None if *shared == 0 => NOWHERE,
            None => (values.len() + hash(value) as usize % shared) as u32,
        };
        vocabulary.iter().map(place).collect()
    };
    fitted.features.iter().zip(&block.vocabularies).map(column).collect()
}

/// FNV-1a: the same on every machine and in every version, since models depend on it.
fn hash(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    // Its low bits alone are not mixed well.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    hash ^ (hash >> 32)
}

/// The targets of all rows.
fn targets(rows: &Rows, fitted: &Fitted) -> Result<Targets> {
    let (table, column) = (&rows.table, rows.plan.features.len());
    match (&fitted.target, rows.plan.task) {
        (_, None) => Ok(Targets::Unknown),
        (FittedTarget::Classes { names, .. }, Some(_)) => {
            let known = Asked { known: Some(names), ..Default::default() };
            Ok(Targets::Classes(Labels::of(table, column, &known)?.labels))
        }
        (FittedTarget::Values { mean, std, .. }, Some(_)) => {
            let values = |number: usize| {
                let (block, start) = (table.block(number)?, table.start(number));
                let numbers = block.numbers(column).enumerate();
                let scaled = numbers.map(|(row, x)| match x.is_nan() {
                    true => Err(no_target(table, column, start + row)),
                    false => Ok(((f64::from(x) - mean) / std) as f32),
                });
                scaled.collect()
            };
            let blocks: Result<Vec<Vec<f32>>> =
                (0..table.blocks()).into_par_iter().map(values).collect();
            Ok(Targets::Values(blocks?.concat()))
        }
    }
}

impl Source for TabularSource {
    fn len(&self) -> usize {
        self.rows.table.rows()
    }

    fn spec(&self) -> &SampleSpec {
        &self.spec
    }

    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn class(&self, index: usize) -> Option<u32> {
        match &self.targets {
            Targets::Classes(labels) => labels.get(index).copied(),
            Targets::Values(_) | Targets::Unknown => None,
        }
    }

    fn origin(&self, index: usize) -> Option<String> {
        Some(self.rows.table.origin(index))
    }

    fn file_of(&self, index: usize) -> Option<(PathBuf, u64)> {
        Some(self.rows.table.file_of(index))
    }

    fn fitted(&self) -> Option<&Arc<Fitted>> {
        Some(&self.fitted)
    }

    fn table(&self) -> Option<&Path> {
        self.rows.table.file()
    }

    fn fit_on(&self, kept: &[usize]) -> Result<Option<Arc<dyn Source>>> {
        if !self.own {
            return Ok(None);
        }
        let table = &self.rows.table;
        let mut is_kept = vec![false; table.rows()];
        for &row in kept {
            *is_kept
                .get_mut(row)
                .ok_or_else(|| no_such_sample(&self.info.name, row, table.rows()))? = true;
        }
        let fitted = self.rows.fit(Some(&is_kept))?;
        let again = Self::new(self.rows.clone(), Arc::new(fitted), true)?;
        Ok(Some(Arc::new(again)))
    }

    fn encoded_as(&self, fitted: &Arc<Fitted>) -> Result<Option<Arc<dyn Source>>> {
        let again = Self::new(self.rows.clone(), fitted.clone(), false)?;
        Ok(Some(Arc::new(again)))
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        let table = &self.rows.table;
        if index >= table.rows() {
            return Err(no_such_sample(&self.info.name, index, table.rows()));
        }
        let (number, row) = table.locate(index);
        // A vector of bytes may begin anywhere; floats are written where four bytes are aligned.
        let bytes = self.spec.input_bytes();
        scratch.resize(bytes + 3, 0);
        let skip = scratch.as_ptr().align_offset(4).min(3);
        let elements = bytemuck::cast_slice_mut(&mut scratch[skip..skip + bytes]);
        match table.lend(number) {
            Some(block) => self.encode(block.row(row), &self.places[number], elements),
            None => {
                let loaded = self.load(number)?;
                self.encode(loaded.0.row(row), &loaded.1, elements);
            }
        }
        let target = match &self.targets {
            Targets::Classes(labels) => Target::Class(labels[index]),
            Targets::Values(values) => Target::Values(&values[index..=index]),
            Targets::Unknown => match self.fitted.target {
                FittedTarget::Classes { .. } => Target::Class(0),
                FittedTarget::Values { .. } => Target::Values(&[0.0]),
            },
        };
        Ok(Sample { input: &scratch[skip..skip + bytes], target })
    }
}
