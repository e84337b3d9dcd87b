//! Asks the scripts under `e2e/expected` whether a job wrote what it should have.

use crate::harness::{Job, Place, tree};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

/// What the Nexmark source generates for these numbers, dumped once by a plain run without parallelism or failures.
pub fn nexmark_events(events: u64, rate: u64) -> PathBuf {
    static DUMPS: OnceLock<Mutex<HashMap<(u64, u64), PathBuf>>> = OnceLock::new();
    let mut dumps = DUMPS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    dumps
        .entry((events, rate))
        .or_insert_with(|| {
            let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("nexmark-events-{events}-{rate}"));
            let _ = fs::remove_dir_all(&directory);
            let place = Place::new();
            place.job(&Job::example("nexmark/events").env("EVENTS", events).env("RATE", rate)).succeed();
            fs::rename(place.path(".streamjob/output/nexmark-events"), &directory)
                .or_else(|_| copy(&place.path(".streamjob/output/nexmark-events"), &directory))
                .expect("keeping the dump");
            directory
        })
        .clone()
}

/// A rename does not cross file systems.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for file in crate::harness::visible_files(from) {
        fs::copy(&file, to.join(file.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// Compares the output of a Nexmark job; panics with the first differences.
pub fn nexmark(query: &str, events: u64, rate: u64, output: &Path, more: &[&str]) {
    let corpus = nexmark_events(events, rate);
    let mut arguments = vec![query, "--corpus", path(&corpus), "--output", path(output)];
    arguments.extend(more);
    script("nexmark.py", &arguments).unwrap_or_else(|message| panic!("{message}"));
}

pub fn even_odd(output: &Path) {
    script("seeds.py", &["even-odd", "--output", path(output)]).unwrap_or_else(|message| panic!("{message}"));
}

pub fn clicks(corpus: &Path, output: &Path) {
    script("seeds.py", &["clicks", "--corpus", path(corpus), "--output", path(output)])
        .unwrap_or_else(|message| panic!("{message}"));
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn script(name: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("python3")
        .arg(tree().join("e2e/expected").join(name))
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python3 is needed to compute expected results");
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn the_comparison_finds_a_lost_a_doubled_and_a_changed_row() {
    let place = Place::new();
    let output = place.path("sums");
    fs::create_dir_all(&output).unwrap();
    let check = |text: &str| {
        fs::write(output.join("part-0"), text).unwrap();
        script("seeds.py", &["even-odd", "--output", path(&output)])
    };
    let even = "{\"op\":\"+I\",\"parity\":\"even\",\"total\":8}\n";
    let odd = "{\"op\":\"+I\",\"parity\":\"odd\",\"total\":8}\n";
    assert_eq!(check(&format!("{even}{odd}")), Ok(()));
    let updated = "{\"op\":\"+I\",\"parity\":\"odd\",\"total\":3}\n{\"op\":\"-U\",\"parity\":\"odd\",\"total\":3}\n{\"op\":\"+U\",\"parity\":\"odd\",\"total\":8}\n";
    assert_eq!(check(&format!("{even}{updated}")), Ok(()));
    assert!(check(even).unwrap_err().contains("1 missing"));
    assert!(check(&format!("{even}{even}{odd}")).unwrap_err().contains("1 too many"));
    assert!(check(&format!("{even}{}", odd.replace('8', "9"))).unwrap_err().contains("1 missing, 1 too many"));
    assert!(check(&format!("{even}{odd}{}", odd.replace("+I", "-U").replace('8', "7"))).is_err());
}
