//! How fast keys find their slots: `cargo run -p streamjob-state --example key_index`.
//! Prints million rows a CPU-second, over batches of 8192 rows. Reads the CPU clock of Linux.

use arrow::array::{ArrayRef, Int64Array, StringArray};
use std::error::Error;
use std::sync::Arc;
use streamjob_state::{KeyIndex, keys};

const ROWS: usize = 8192;
const BATCHES: usize = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    for (name, distinct) in [("1 M uniform keys", 1u64 << 20), ("1000 hot keys", 1000)] {
        let mut state = 1u64;
        let mut next = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 33) % distinct) as i64
        };
        let numbers: Vec<ArrayRef> = (0..BATCHES)
            .map(|_| Arc::new(Int64Array::from_iter_values((0..ROWS).map(|_| next()))) as ArrayRef)
            .collect();
        measure(&format!("{name}, BIGINT"), &numbers)?;
        let texts: Vec<ArrayRef> = (0..BATCHES / 4)
            .map(|_| Arc::new(StringArray::from_iter_values((0..ROWS).map(|_| format!("user-{}", next())))) as ArrayRef)
            .collect();
        measure(&format!("{name}, STRING"), &texts)?;
    }
    Ok(())
}

fn measure(name: &str, columns: &[ArrayRef]) -> Result<(), Box<dyn Error>> {
    let mut index = KeyIndex::new(&[columns[0].data_type().clone()])?;
    let mut slots = Vec::new();
    let mut passes = Vec::new();
    for _ in 0..3 {
        let start = cpu_seconds()?;
        for column in columns {
            index.intern_batch(std::slice::from_ref(column), ROWS, &mut slots, |_, _| {})?;
        }
        passes.push((columns.len() * ROWS) as f64 / (cpu_seconds()? - start) / 1e6);
    }
    let mut groups = Vec::new();
    let start = cpu_seconds()?;
    for column in columns {
        keys::key_groups(std::slice::from_ref(column), 128, &mut groups)?;
    }
    let hashed = (columns.len() * ROWS) as f64 / (cpu_seconds()? - start) / 1e6;
    println!("{name}: first pass {:.0}, then {:.0}; key groups {hashed:.0} M rows/s", passes[0], passes[2]);
    Ok(())
}

/// Time that this thread was on a core, so that a busy machine does not count.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: f64 = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(nanoseconds / 1e9)
}
