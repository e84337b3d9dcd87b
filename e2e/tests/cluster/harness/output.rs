//! What a job has written, given to a checker that shares nothing with the engine.

use super::{Job, command, tree};
use std::time::{SystemTime, UNIX_EPOCH};

impl Job<'_> {
    /// Nothing was lost and nothing counted twice so far; the job may run on.
    pub async fn check_so_far(&self) -> String {
        self.check(&[]).await
    }

    /// The same of a job that writes nothing now: both tables agree.
    pub async fn check_at_rest(&self) -> String {
        self.check(&["--totals"]).await
    }

    /// The same of a job that has finished: every number up to `end` is there.
    pub async fn check_finished(&self, end: i64) -> String {
        self.check(&["--totals", "--end", &end.to_string()]).await
    }

    /// How many numbers are visible.
    pub async fn numbers(&self) -> usize {
        self.read("passed").await.lines().count()
    }

    async fn read(&self, table: &str) -> String {
        // Names of unfinished files begin with a dot, so the pattern leaves them out.
        let script = format!("cat /data/{}/{table}/* 2>/dev/null || true", self.name);
        self.story.exec("tools", &script).await.expect("reading the output")
    }

    async fn check(&self, options: &[&str]) -> String {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_nanos();
        let folder = std::env::temp_dir().join(format!("streamjob-output-{}-{since}", self.story.namespace));
        std::fs::create_dir_all(&folder).expect("a folder for the output");
        let file = |table: &str| folder.join(table).display().to_string();
        let checker = tree().join("e2e/check_output.py").display().to_string();
        let mut arguments = vec![checker, "--passed".into(), file("passed")];
        std::fs::write(file("passed"), self.read("passed").await).expect("writing the output");
        for &option in options {
            arguments.push(option.into());
            if option == "--totals" {
                std::fs::write(file("totals"), self.read("totals").await).expect("writing the output");
                arguments.push(file("totals"));
            }
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let verdict = command_with_output("python3", &arguments).await;
        let verdict =
            verdict.unwrap_or_else(|problems| panic!("{}: {problems}\nkept in {}", self.name, folder.display()));
        std::fs::remove_dir_all(&folder).expect("removing the output");
        println!("{}: {}", self.story.namespace, verdict.trim());
        verdict
    }
}

/// As [`command`], but with the output of a program that failed: the checker says there what is wrong.
async fn command_with_output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let quoted: Vec<String> = arguments.iter().map(|argument| format!("'{argument}'")).collect();
    let line = format!("{program} {} 2>&1 || {{ echo FAILED; }}", quoted.join(" "));
    let output = command("sh", &["-c", &line]).await?;
    if output.trim_end().ends_with("FAILED") { Err(output) } else { Ok(output) }
}
