//! A row: columns by name with their values.

use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;
use std::io;
use std::sync::Arc;

/// Columns by name with their values in text form; nothing is null.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    names: Arc<[String]>,
    values: Vec<Option<String>>,
}

impl Row {
    /// A row of `columns`, in any order.
    ///
    /// # Errors
    /// [`DuplicateColumn`] when a name occurs twice.
    pub fn new(mut columns: Vec<(String, Option<String>)>) -> Result<Row, DuplicateColumn> {
        columns.sort_by(|a, b| a.0.cmp(&b.0));
        let (names, values): (Vec<String>, Vec<Option<String>>) = columns.into_iter().unzip();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(DuplicateColumn);
        }
        Ok(Row { names: names.into(), values })
    }

    /// A row whose names are known to be ascending, shared between rows of one table.
    pub(crate) fn of_sorted(names: Arc<[String]>, values: Vec<Option<String>>) -> Row {
        debug_assert_eq!(names.len(), values.len());
        Row { names, values }
    }

    /// The columns, ascending by name.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = (&str, Option<&str>)> {
        self.names.iter().map(String::as_str).zip(self.values.iter().map(Option::as_deref))
    }

    /// The value of `column`: `None` without such a column, `Some(None)` when it is null.
    pub fn get(&self, column: &str) -> Option<Option<&str>> {
        let index = self.names.binary_search_by(|name| name.as_str().cmp(column)).ok()?;
        Some(self.values.get(index)?.as_deref())
    }

    pub(super) fn size(&self) -> u64 {
        let names: usize = self.names.iter().map(|name| name.len() + 5).sum();
        let values: usize = self.values.iter().flatten().map(String::len).sum();
        (names + values) as u64
    }
}

/// A column name that occurs twice in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a column occurs twice in a row")]
pub struct DuplicateColumn;

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.columns()).finish()
    }
}

impl BorshSerialize for Row {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        let len = u32::try_from(self.names.len()).map_err(io::Error::other)?;
        len.serialize(writer)?;
        for (name, value) in self.names.iter().zip(&self.values) {
            name.serialize(writer)?;
            value.serialize(writer)?;
        }
        Ok(())
    }
}

impl BorshDeserialize for Row {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Row> {
        let columns = Vec::<(String, Option<String>)>::deserialize_reader(reader)?;
        // One encoding per row, so that a digest cannot be met by another order.
        if columns.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "columns are not in ascending order"));
        }
        let (names, values): (Vec<String>, Vec<Option<String>>) = columns.into_iter().unzip();
        Ok(Row { names: names.into(), values })
    }
}
