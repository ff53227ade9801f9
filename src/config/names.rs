//! Settings that can be written as a name alone or as a table with a `type`.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::error::{Error, Result};
use crate::nn::optimizers::OptimizerConfig;
use crate::nn::schedules::Schedule;
use crate::transform::TransformConfig;

/// What can be written as a name alone, with the defaults of that name.
pub(super) trait Named: Sized {
    fn named(name: &str) -> Result<Self>;
}

impl Named for OptimizerConfig {
    fn named(name: &str) -> Result<Self> {
        Self::by_name(name)
    }
}

impl Named for Schedule {
    fn named(name: &str) -> Result<Self> {
        match name {
            // Its default depends on the length of the run, which a file does not know.
            "step" => Err(Error::config("schedule", "step needs to know every how many steps")
                .hint("{ type = \"step\", every = 1000 }")),
            name => Self::by_name(name, 1),
        }
    }
}

impl Named for TransformConfig {
    fn named(name: &str) -> Result<Self> {
        name.parse()
    }
}

/// One transform of a list.
#[derive(Deserialize)]
#[serde(transparent)]
struct OneTransform(#[serde(deserialize_with = "name_or_table")] TransformConfig);

pub(super) fn names_or_tables<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Vec<TransformConfig>, D::Error> {
    let list = Vec::<OneTransform>::deserialize(d)?;
    Ok(list.into_iter().map(|OneTransform(transform)| transform).collect())
}

pub(super) fn some_name_or_table<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Schedule>, D::Error> {
    name_or_table(d).map(Some)
}

/// By hand, because serde's untagged enums hide what is wrong inside a table.
pub(super) fn name_or_table<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Named + DeserializeOwned,
    D: Deserializer<'de>,
{
    struct NameOrTable<T>(PhantomData<T>);

    impl<'de, T: Named + DeserializeOwned> Visitor<'de> for NameOrTable<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a name or a table with `type`")
        }

        fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<T, E> {
            T::named(name).map_err(E::custom)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_any(NameOrTable(PhantomData))
}
