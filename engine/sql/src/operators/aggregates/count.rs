//! `COUNT(*)` and `COUNT(x)`.

use super::{Accumulator, Rows, natives};
use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::DataType;
use std::sync::Arc;
use streamjob_dataflow::TaskError;

#[derive(Debug, Default)]
pub(super) struct Count {
    counts: Vec<i64>,
}

impl Count {
    pub fn add(&mut self, slot: u32, difference: i64) {
        self.counts[slot as usize] += difference;
    }
}

impl Accumulator for Count {
    fn resize(&mut self, slots: usize) {
        self.counts.resize(slots, 0);
    }

    fn clear(&mut self) {
        self.counts.clear();
    }

    fn reset(&mut self, slot: u32) {
        self.counts[slot as usize] = 0;
    }

    fn update(&mut self, rows: Rows<'_>, _argument: Option<&ArrayRef>) -> Result<(), TaskError> {
        let counts = self.counts.as_mut_slice();
        rows.each(|_, slot, sign| {
            counts[slot] += sign as i64;
            Ok(())
        })
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<(), TaskError> {
        for (&slot, &count) in slots.iter().zip(natives::<i64>(&state[0]).iter()) {
            self.counts[slot as usize] += count;
        }
        Ok(())
    }

    fn result(&self, slots: &[u32]) -> Result<ArrayRef, TaskError> {
        Ok(Arc::new(Int64Array::from_iter_values(slots.iter().map(|&slot| self.counts[slot as usize]))))
    }

    fn state_types(&self) -> Vec<(&'static str, DataType)> {
        vec![("", DataType::Int64)]
    }

    fn state(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, TaskError> {
        Ok(vec![self.result(slots)?])
    }

    fn restore(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<(), TaskError> {
        for (&slot, &count) in slots.iter().zip(natives::<i64>(&state[0]).iter()) {
            self.counts[slot as usize] = count;
        }
        Ok(())
    }
}
