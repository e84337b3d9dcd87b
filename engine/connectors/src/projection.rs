//! Which columns a job reads, and what stands in the place of the others.

use arrow::array::{Array, ArrayRef, ListArray, StructArray, new_null_array};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{DataType, FieldRef};
use arrow::error::ArrowError;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// How much of a column is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// All of it, nested fields included.
    Whole,
    /// Some nested fields.
    Parts,
    Nothing,
}

/// What `required` (see `SourceRequest`) says about the column at `path`.
pub(crate) fn need(required: Option<&BTreeSet<Vec<String>>>, path: &[&str]) -> Need {
    let Some(required) = required else { return Need::Whole };
    let agrees = |wanted: &[String]| wanted.iter().zip(path).all(|(left, right)| left == right);
    let mut need = Need::Nothing;
    for wanted in required {
        if agrees(wanted) {
            if wanted.len() <= path.len() {
                return Need::Whole;
            }
            need = Need::Parts;
        }
    }
    need
}

/// Arrays for columns that nobody reads, made once and shared by all batches.
#[derive(Default)]
pub(crate) struct Placeholders {
    arrays: HashMap<(DataType, bool), ArrayRef>,
}

impl Placeholders {
    /// Nulls, or zeros where the field must not be null.
    pub fn get(&mut self, field: &FieldRef, rows: usize) -> Result<ArrayRef, ArrowError> {
        let key = (field.data_type().clone(), field.is_nullable());
        if let Some(array) = self.arrays.get(&key)
            && array.len() >= rows
        {
            return Ok(array.slice(0, rows));
        }
        let array = placeholder(field, rows)?;
        self.arrays.insert(key, array.clone());
        Ok(array)
    }
}

fn placeholder(field: &FieldRef, rows: usize) -> Result<ArrayRef, ArrowError> {
    if field.is_nullable() {
        return Ok(new_null_array(field.data_type(), rows));
    }
    match field.data_type() {
        DataType::Struct(fields) => {
            let children = fields.iter().map(|field| placeholder(field, rows)).collect::<Result<Vec<_>, _>>()?;
            Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), children, None, rows)?))
        }
        DataType::List(element) => {
            let offsets = OffsetBuffer::new_zeroed(rows);
            Ok(Arc::new(ListArray::try_new(element.clone(), offsets, placeholder(element, 0)?, None)?))
        }
        // The null array's buffers are zeros: without its null bitmap they are zeros, `false` and empty strings.
        kind => {
            let zeros = new_null_array(kind, rows).to_data().into_builder().nulls(None).build()?;
            debug_assert!(zeros.buffers().iter().all(|buffer: &Buffer| buffer.iter().all(|byte| *byte == 0)));
            Ok(arrow::array::make_array(zeros))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{Field, Fields};

    #[test]
    fn needs_follow_the_paths() {
        let required = BTreeSet::from([vec!["a".to_string()], vec!["b".to_string(), "x".to_string()]]);
        for (path, expected) in [
            (&["a"][..], Need::Whole),
            (&["a", "y"], Need::Whole),
            (&["b"], Need::Parts),
            (&["b", "x"], Need::Whole),
            (&["b", "y"], Need::Nothing),
            (&["c"], Need::Nothing),
        ] {
            assert_eq!(need(Some(&required), path), expected, "{path:?}");
        }
        assert_eq!(need(None, &["c"]), Need::Whole);
        assert_eq!(need(Some(&BTreeSet::new()), &["c"]), Need::Nothing);
    }

    #[test]
    fn placeholders_respect_not_null() {
        let inner = Fields::from(vec![Field::new("x", DataType::Int64, false), Field::new("y", DataType::Utf8, true)]);
        let mut placeholders = Placeholders::default();
        for kind in [DataType::Boolean, DataType::Utf8, DataType::Utf8View, DataType::Int32, DataType::Struct(inner)] {
            for nullable in [true, false] {
                let field = Arc::new(Field::new("f", kind.clone(), nullable));
                for rows in [3, 2, 5, 0] {
                    let array = placeholders.get(&field, rows).unwrap();
                    assert_eq!(array.len(), rows);
                    assert_eq!(array.null_count(), if nullable { rows } else { 0 }, "{kind}");
                }
            }
        }
    }
}
