//! Names of cells, packed: a study keeps only tens of bytes for each cell.

use std::fmt;
use std::ops::Index;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

/// A list of names in one string. Clones share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    text: Arc<String>,
    /// Where each name ends.
    ends: Arc<Vec<usize>>,
}

impl Names {
    pub(crate) fn push(&mut self, name: &str) {
        let text = Arc::make_mut(&mut self.text);
        text.push_str(name);
        Arc::make_mut(&mut self.ends).push(text.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|i| &self[i])
    }
}

impl Index<usize> for Names {
    type Output = str;

    fn index(&self, i: usize) -> &str {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.text[start..self.ends[i]]
    }
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of names")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
                let mut names = Names::default();
                while let Some(name) = list.next_element::<String>()? {
                    names.push(&name);
                }
                Ok(names)
            }
        }
        deserializer.deserialize_seq(List)
    }
}

#[cfg(test)]
mod tests {
    use super::Names;

    #[test]
    fn a_packed_list_is_the_list() {
        let list = ["mps-0a", "", "krisp-1b"];
        let mut names = Names::default();
        list.iter().for_each(|name| names.push(name));
        assert!(names.iter().eq(list) && names.len() == 3);
        let json = serde_json::to_string(&names).unwrap();
        assert_eq!(json, serde_json::to_string(&list).unwrap());
        assert_eq!(serde_json::from_str::<Names>(&json).unwrap(), names);
    }
}
