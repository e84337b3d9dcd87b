//! What a job has written, given to a checker that shares nothing with the engine.

use super::{Job, tree};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::process::Command;

impl Job<'_> {
    /// Nothing was lost and nothing counted twice so far; the job may run on.
    pub async fn check_so_far(&self) {
        self.check_output(&self.name, None, false).await;
    }

    /// The same of a job that writes nothing now: both tables agree.
    pub async fn check_at_rest(&self) {
        self.check_output(&self.name, None, true).await;
    }

    /// The same of a job that has finished: every number up to `end` is there.
    pub async fn check_finished(&self, end: i64) {
        self.check_output(&self.name, Some(end), true).await;
    }

    /// Suspends the job and checks all that it has written.
    pub async fn check_suspended(&self) {
        self.suspend().await;
        self.check_at_rest().await;
    }

    /// How many numbers are visible.
    pub async fn numbers(&self) -> usize {
        self.read(&self.name, "passed").await.lines().count()
    }

    async fn read(&self, directory: &str, table: &str) -> String {
        // Names of unfinished files begin with a dot, so the pattern leaves them out.
        let script = format!("cat /data/{directory}/{table}/* 2>/dev/null || true");
        self.story.exec("tools", &script).await.expect("reading the output")
    }

    /// Checks the output below a directory of the claim `out`.
    pub async fn check_output(&self, directory: &str, end: Option<i64>, totals: bool) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_nanos();
        let folder = std::env::temp_dir().join(format!("streamjob-output-{}-{since}", self.story.namespace));
        std::fs::create_dir_all(&folder).expect("a folder for the output");
        let mut arguments = vec![tree().join("e2e/check_output.py").display().to_string()];
        for table in ["passed", "totals"].into_iter().take(if totals { 2 } else { 1 }) {
            let file = folder.join(table);
            std::fs::write(&file, self.read(directory, table).await).expect("writing the output");
            arguments.extend([format!("--{table}"), file.display().to_string()]);
        }
        if let Some(end) = end {
            arguments.extend(["--end".into(), end.to_string()]);
        }
        let output = Command::new("python3").args(&arguments).output().await.expect("running the checker");
        let verdict = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}: kept in {}\n{verdict}", self.name, folder.display());
        std::fs::remove_dir_all(&folder).expect("removing the output");
        println!("{}: {}", self.story.namespace, verdict.trim());
    }
}
