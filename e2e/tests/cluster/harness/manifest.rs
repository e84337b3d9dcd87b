//! Jobs of the stories: counting numbers, so that what has to come out is known.

use serde_json::{Value, json};

/// Where a job's state lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// A claim of the job's own.
    Claim,
    /// The object store in the cluster.
    S3,
}

/// A StreamJob before it is applied.
#[derive(Debug, Clone)]
pub struct Manifest {
    pub value: Value,
}

/// Every number once into `passed`, count and sum by key into `totals`.
const COUNTING: &str = "\
CREATE TABLE numbers (n BIGINT) WITH (
  'connector' = 'datagen', 'rows-per-second' = '${RATE}',
  'fields.n.kind' = 'sequence', 'fields.n.start' = '1', 'fields.n.end' = '${END}'
);
CREATE TABLE passed (n BIGINT) WITH ('connector' = 'filesystem', 'path' = '${OUT}/passed', 'format' = 'json');
CREATE TABLE totals (k BIGINT, cnt BIGINT, total BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH (
  'connector' = 'filesystem', 'path' = '${OUT}/totals', 'format' = 'json', 'sink.changelog' = 'true'
);
EXECUTE STATEMENT SET
BEGIN
  INSERT INTO passed SELECT n FROM numbers WHERE n > 0;
  INSERT INTO totals SELECT n % 100 AS k, COUNT(*) AS cnt, SUM(n) AS total FROM numbers GROUP BY n % 100;
END;
";

/// A number that no story reaches.
const NEVER: i64 = 1_000_000_000;

impl Manifest {
    /// The counting job with one worker slot a subtask, 1,000 numbers a second and a checkpoint each second.
    pub fn counting(name: &str, storage: Storage) -> Manifest {
        let mut spec = json!({
            "parallelism": 2,
            "program": {"sql": COUNTING},
            "checkpoint": {"interval": "1s", "timeout": "30s", "tolerableFailures": 10},
            "restartStrategy": {"fixedDelay": {"attempts": 1_000_000, "delay": "100ms"}},
            "deletion": {"policy": "Discard"},
            "env": [
                {"name": "RATE", "value": "1000"},
                {"name": "END", "value": NEVER.to_string()},
                {"name": "OUT", "value": format!("/out/{name}")},
            ],
            "workers": {"slots": 1, "resources": small(), "podTemplate": {"spec": {
                "containers": [{"name": "streamjob", "volumeMounts": [{"name": "out", "mountPath": "/out"}]}],
                "volumes": [{"name": "out", "persistentVolumeClaim": {"claimName": "out"}}],
            }}},
            "coordinator": {"resources": small()},
        });
        spec["storage"] = match storage {
            Storage::Claim => json!({"persistentVolumeClaim": {"template": {"size": "1Gi"}}}),
            Storage::S3 => json!({"s3": {
                "bucket": "streamjob", "prefix": "e2e", "endpoint": "http://minio.minio.svc.cluster.local:9000",
                "region": "us-east-1", "credentialsSecret": {"name": "s3-credentials"},
            }}),
        };
        Manifest {
            value: json!({
                "apiVersion": "streamjob.dev/v1alpha1",
                "kind": "StreamJob",
                "metadata": {"name": name},
                "spec": spec,
            }),
        }
    }

    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().expect("a name")
    }

    /// Sets a field of the spec, by JSON pointer.
    pub fn set(mut self, pointer: &str, value: Value) -> Manifest {
        let mut place = &mut self.value["spec"];
        for part in pointer.trim_start_matches('/').split('/') {
            place = match part.parse::<usize>() {
                Ok(index) => &mut place[index],
                Err(_) => &mut place[part],
            };
        }
        *place = value;
        self
    }

    pub fn env(mut self, name: &str, value: impl ToString) -> Manifest {
        let entries = self.value["spec"]["env"].as_array_mut().expect("env entries");
        let entry = entries.iter_mut().find(|entry| entry["name"] == name).expect("an entry of that name");
        entry["value"] = json!(value.to_string());
        self
    }

    /// Replaces a piece of the SQL text that occurs once.
    pub fn sql(self, old: &str, new: &str) -> Manifest {
        let text = self.value["spec"]["program"]["sql"].as_str().expect("a SQL text");
        assert_eq!(text.matches(old).count(), 1, "'{old}' in\n{text}");
        let text = text.replace(old, new);
        self.set("/program/sql", json!(text))
    }

    /// An edit that means the same: another text, other pods.
    pub fn edited(self, times: u32) -> Manifest {
        let text = self.value["spec"]["program"]["sql"].as_str().expect("a SQL text");
        let old = text.lines().find(|line| line.contains("INSERT INTO passed")).expect("the statement").to_owned();
        self.sql(&old, &format!("  INSERT INTO passed SELECT n FROM numbers WHERE n > -{times};"))
    }

    /// Ends after so many numbers.
    pub fn end(self, end: i64) -> Manifest {
        self.env("END", end)
    }
}

fn small() -> Value {
    json!({"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "512Mi"}})
}
