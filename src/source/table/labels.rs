//! Classes of rows: their names, and the class of each row.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use super::block::{Block, MISSING, Table};
use crate::error::{Error, Result};

/// Classes at most. A column with more names is no class.
const CLASSES_MAX: usize = 65_536;

/// So many different values may be classes however few rows there are; where most of more are there once, they are none
/// unless they are asked for.
const SINGLE_MAX: usize = 20;

/// Classes at most of a column of whole numbers, unless classes are asked for.
const WHOLE_CLASSES_MAX: usize = 1000;

/// Classes that an error lists at most.
const LISTED_MAX: usize = 20;

/// What is said about classes before the rows are looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked<'a> {
    /// How many there are to be.
    pub count: Option<usize>,
    /// Whether the target was said to be a class.
    pub classify: bool,
    /// Names of the classes 0, 1, and so on in this file, where it carries them.
    pub numbered: &'a [String],
    /// Names of the classes of the training part.
    pub known: Option<&'a [String]>,
}

/// The classes of all rows.
pub(crate) struct Labels {
    pub names: Vec<String>,
    pub labels: Vec<u32>,
}

impl Labels {
    /// Reads the classes in `column`.
    ///
    /// # Errors
    /// When a row has none, or one that is not known.
    pub fn of(table: &Table, column: usize, asked: &Asked<'_>) -> Result<Self> {
        let names = match asked.known {
            Some(names) => names.to_vec(),
            None if !asked.numbered.is_empty() => asked.numbered.to_vec(),
            None => {
                let blocks: Result<Vec<HashSet<String>>> = (0..table.blocks())
                    .into_par_iter()
                    .map(|number| {
                        let block = table.block(number)?;
                        // Only what occurs: a vocabulary from a file may hold more.
                        let codes: HashSet<u32> = block.codes(column).collect();
                        let text = |&code: &u32| block.text(column, code).map(String::from);
                        Ok(codes.iter().filter_map(text).collect())
                    })
                    .collect();
                let mut all = HashSet::new();
                blocks?.into_iter().for_each(|names| all.extend(names));
                classes(table, column, all.into_iter().collect(), asked)?
            }
        };
        let mut classes: HashMap<String, u32> = names.iter().cloned().zip(0..).collect();
        // A part may number its classes in another order than the training part.
        let place = |(number, name): (usize, &String)| {
            let is_same = names.get(number) == Some(name);
            let place = if is_same { number as u32 } else { *classes.get(name)? };
            Some((number.to_string(), place))
        };
        let numbers: Vec<_> = asked.numbered.iter().enumerate().filter_map(place).collect();
        classes.extend(numbers);
        let labels: Result<Vec<Vec<u32>>> = (0..table.blocks())
            .into_par_iter()
            .map(|number| {
                let block = table.block(number)?;
                of_block(table, table.start(number), &block, column, &classes, asked.numbered)
            })
            .collect();
        Ok(Self { names, labels: labels?.concat() })
    }
}

/// The classes of a block's rows.
fn of_block(
    table: &Table,
    start: usize,
    block: &Block,
    column: usize,
    classes: &HashMap<String, u32>,
    numbered: &[String],
) -> Result<Vec<u32>> {
    let known = |name: &String| {
        // The census files end the labels of their test part in a full stop.
        let trimmed = || name.strip_suffix('.').and_then(|name| classes.get(name));
        classes.get(name.as_str()).or_else(trimmed).copied()
    };
    let places: Vec<Option<u32>> = block.vocabularies[column].iter().map(known).collect();
    let label = |(row, code): (usize, u32)| match code {
        MISSING => Err(no_target(table, column, start + row)),
        code => places[code as usize].ok_or_else(|| {
            let mut known: Vec<(&u32, &String)> =
                classes.iter().map(|(name, i)| (i, name)).collect();
            known.sort();
            let known: Vec<&str> =
                known.iter().take(LISTED_MAX).map(|(_, name)| &***name).collect();
            let found = block.text(column, code).unwrap_or_default();
            let name = found.parse().ok().and_then(|number: usize| numbered.get(number));
            let name = name.map_or(String::new(), |name| format!(" ({name})"));
            let message =
                format!("found class {found:?}{name}, expected one of {}", known.join(", "));
            Error::data(table.cell(start + row, column), message)
        }),
    };
    block.codes(column).enumerate().map(label).collect()
}

/// The error of a row without a target.
pub(super) fn no_target(table: &Table, column: usize, row: usize) -> Error {
    Error::data(table.cell(row, column), "found no value, expected a target in every row")
        .hint("leaving out rows without one")
}

/// What classes without names are called: `0`, `1`, and so on.
pub(crate) fn class_numbers(classes: usize) -> Vec<String> {
    (0..classes).map(|class| class.to_string()).collect()
}

/// The names of the classes, in order: whole numbers in theirs, names in that of their bytes.
pub(super) fn classes(
    table: &Table,
    column: usize,
    mut names: Vec<String>,
    asked: &Asked<'_>,
) -> Result<Vec<String>> {
    let refuse = |message: String, hint: &str| {
        let item = format!("{} column {}", table.path.display(), table.columns[column].name);
        Err(Error::data(item, message).hint(hint))
    };
    let whole = |name: &String| name.parse::<i64>().ok();
    let all_whole = names.iter().all(|name| whole(name).is_some());
    names.sort_by(|a, b| match all_whole {
        true => whole(a).cmp(&whole(b)).then_with(|| a.cmp(b)),
        false => a.cmp(b),
    });
    let most = if all_whole && !asked.classify { WHOLE_CLASSES_MAX } else { CLASSES_MAX };
    if names.len() > most {
        let message =
            format!("found {} different values, expected at most {most} classes", names.len());
        return refuse(message, "--task regress, or another --target");
    }
    let (found, rows) = (names.len(), table.rows());
    if !asked.classify && found > SINGLE_MAX && 2 * found > rows {
        let message = format!(
            "found {found} different values in {rows} rows, expected classes that come again"
        );
        let hint = if all_whole { "--task regress" } else { "--task classify" };
        return refuse(message, &format!("{hint}, or another --target"));
    }
    if let Some(count) = asked.count
        && count != names.len()
    {
        // Labels from 0 on may leave out a class.
        let below = |name: &String| whole(name).is_some_and(|w| (0..count as i64).contains(&w));
        if !names.iter().all(below) {
            let message = format!("found {} classes, expected {count} (--classes)", names.len());
            return refuse(message, "leaving out --classes");
        }
        names = class_numbers(count);
    }
    match names.len() {
        0 => refuse("found no value, expected classes".into(), "another --target"),
        _ => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::{Kind, Wanted};
    use super::*;

    #[test]
    fn classes_are_in_order() {
        let wanted = Wanted { position: 0, name: "y".into(), kind: Kind::Text };
        let table = Table::resident("t.csv".into(), vec![wanted], vec![]);
        let classes = |names: &[&str], count| {
            let names = names.iter().map(|name| name.to_string()).collect();
            classes(&table, 0, names, &Asked { count, ..Default::default() })
        };
        let own = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        assert_eq!(classes(&["10", "9", "-1"], None).expect("fits"), own(&["-1", "9", "10"]));
        assert_eq!(classes(&["b", "10", "9"], None).expect("fits"), own(&["10", "9", "b"]));
        assert_eq!(classes(&["2", "0"], Some(3)).expect("fits"), own(&["0", "1", "2"]));
        let message = classes(&["2", "0"], Some(1)).expect_err("too few").to_string();
        assert!(
            message.contains("t.csv column y: found 2 classes, expected 1 (--classes)"),
            "{message}"
        );
        assert!(classes(&[], None).is_err());
    }
}
