//! Every way to get a job file wrong, and the one message that it gives.

#![allow(clippy::unwrap_used)]

/// A job file whose `spec` is `spec` (line 6 is its first line).
fn job(spec: &str) -> String {
    let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("apiVersion: streamjob.dev/v1alpha1\nkind: StreamJob\nmetadata:\n  name: visits\nspec:\n{indented}")
}

/// A job file with a program (line 6) and `rest` (from line 7).
fn with(rest: &str) -> String {
    job(&format!("program: {{sql: SELECT 1}}\n{rest}"))
}

#[test]
fn whole_files() {
    let table = [
        ("", "the job file (line 1): found nothing; expected the fields apiVersion, kind, metadata, spec"),
        ("hello", "the job file (line 1): found \"hello\"; expected the fields apiVersion, kind, metadata, spec"),
        ("- a\n- b", "the job file (line 1): found a list; expected the fields apiVersion, kind, metadata, spec"),
        (
            "apiVersion: streamjob.dev/v1\nkind: StreamJob\n",
            "apiVersion (line 1): found \"streamjob.dev/v1\"; expected streamjob.dev/v1alpha1",
        ),
        (
            "apiVersion: streamjob.dev/v1alpha1\nkind: Streamjob\n",
            "kind (line 2): found \"Streamjob\"; expected StreamJob; did you mean StreamJob?",
        ),
        ("kind: StreamJob\n", "apiVersion (line 1): it is missing; expected streamjob.dev/v1alpha1"),
        (
            "apiVersion: streamjob.dev/v1alpha1\nkind: StreamJob\nmetadata: {name: a}\n",
            "spec (line 1): it is missing; expected the fields checkpoint, coordinator, deletion, env, failover, heartbeat, \
             image, imagePullPolicy, imagePullSecrets, maxParallelism, parallelism, program, restartNonce, \
             restartStrategy, restoreFrom, savepoints, state, stateBackend, storage, upgrade, workers",
        ),
        (
            "apiVersion: streamjob.dev/v1alpha1\nkind: StreamJob\nmetadata: {}\nspec: {program: {sql: x}}",
            "metadata.name (line 3): it is missing; expected lower-case letters, digits and '-', beginning and ending \
             with a letter or digit",
        ),
        (
            "apiVersion: streamjob.dev/v1alpha1\nkind: StreamJob\nmetadata:\n  name: My_Job\nspec: {program: {sql: x}}",
            "metadata.name (line 4): found \"My_Job\"; expected lower-case letters, digits and '-', beginning and ending \
             with a letter or digit",
        ),
        (
            "apiVersion: streamjob.dev/v1alpha1\nkind: StreamJob\nmetadata:\n  name: 5\nspec: {program: {sql: x}}",
            "metadata.name (line 4): found 5; expected lower-case letters, digits and '-', beginning and ending with a \
             letter or digit",
        ),
        (
            "apiVersion: streamjob.dev/v1alpha1\nkind: StreamJob\nmetadata:\n  name: a\n  title: b\nspec: {program: {sql: x}}",
            "metadata.title (line 5): there is no such field; metadata has: annotations, labels, name, namespace",
        ),
        (
            "apiVersion: streamjob.dev/v1alpha1\nkind: StreamJob\nmetadata:\n  name: a\nspecs: {}",
            "specs (line 5): there is no such field; the job file has: apiVersion, kind, metadata, spec; did you mean \
             spec?",
        ),
    ];
    for (yaml, expected) in table {
        assert_eq!(streamjob_api::parse(yaml).unwrap_err().to_string(), expected, "{yaml}");
    }
}

#[test]
fn fields() {
    let alternatives = "expected exactly one of none, fixedDelay, failureRate, exponentialDelay";
    let table = [
        (job("program:"), "spec.program (line 6): it is missing; expected the fields args, command, sql".to_owned()),
        (job("program: {}"), "spec.program (line 6): found none of its alternatives; expected exactly one of sql, command".into()),
        (job("program: SELECT"), "spec.program (line 6): found \"SELECT\"; expected the fields args, command, sql".into()),
        (
            job("program:\n  sql: x\n  command: [a]"),
            "spec.program (line 6): found sql and command; expected exactly one of sql, command".into(),
        ),
        (job("program:\n  sql: ''"), "spec.program.sql (line 7): found an empty string; expected 1 to 262144 characters".into()),
        (
            job("program:\n  sql: '  '"),
            "spec.program.sql (line 7): it is empty; write CREATE TABLE and INSERT INTO statements".into(),
        ),
        (
            job("program:\n  command: [a]"),
            "spec.program.command (line 7): programs in Rust are not available yet; use sql".into(),
        ),
        (job("program:\n  sql: x\n  args: [a]"), "spec.program.args (line 8): it needs command; leave it out".into()),
        (
            job("program:\n  sqlFile: a.sql"),
            "spec.program.sqlFile (line 7): there is no such field; spec.program has: args, command, sql".into(),
        ),
        (with("parallelism: two"), "spec.parallelism (line 7): found \"two\"; expected a whole number from 1 to 32768".into()),
        (
            with("parallelism: '2'"),
            "spec.parallelism (line 7): found \"2\"; expected a whole number from 1 to 32768 (without quotes)".into(),
        ),
        (with("parallelism: 0"), "spec.parallelism (line 7): found 0; expected a whole number from 1 to 32768".into()),
        (with("parallelism: 2.5"), "spec.parallelism (line 7): found 2.5; expected a whole number from 1 to 32768".into()),
        (with("parallelism: 40000"), "spec.parallelism (line 7): found 40000; expected a whole number from 1 to 32768".into()),
        (
            with("parallelism: 8\nmaxParallelism: 4"),
            "spec.parallelism (line 7): found 8, more than maxParallelism 4; lower it, or raise maxParallelism (which a job \
             with state cannot change any more)"
                .into(),
        ),
        (
            with("workers:\n  slot: 2"),
            "spec.workers.slot (line 8): there is no such field; spec.workers has: podTemplate, resources, slots; did you \
             mean slots?"
                .into(),
        ),
        (
            with("checkpoint:\n  interval: 5ms"),
            "spec.checkpoint.interval (line 8): found 5ms; expected at least 10ms".into(),
        ),
        (
            with("checkpoint:\n  interval: 10"),
            "spec.checkpoint.interval (line 8): found 10; expected a duration with units ms, s, m, h or d, for example \
             \"10s\", \"1m30s\" or \"500ms\""
                .into(),
        ),
        (
            with("checkpoint:\n  interval: ten seconds"),
            "spec.checkpoint.interval (line 8): found \"ten seconds\"; expected a duration with units ms, s, m, h or d, \
             for example \"10s\", \"1m30s\" or \"500ms\""
                .into(),
        ),
        (with("checkpoint:\n  timeout: 9ms"), "spec.checkpoint.timeout (line 8): found 9ms; expected at least 10ms".into()),
        (
            with("checkpoint:\n  minPause: 400d"),
            "spec.checkpoint.minPause (line 8): found 400d; expected at most 365d".into(),
        ),
        (
            with("checkpoint:\n  minPause: -1s"),
            "spec.checkpoint.minPause (line 8): found \"-1s\"; expected a duration with units ms, s, m, h or d, for \
             example \"10s\", \"1m30s\" or \"500ms\""
                .into(),
        ),
        (
            with("checkpoint:\n  maxConcurrent: 0"),
            "spec.checkpoint.maxConcurrent (line 8): found 0; expected a whole number from 1 to 100".into(),
        ),
        (
            with("checkpoint:\n  tolerableFailures: -1"),
            "spec.checkpoint.tolerableFailures (line 8): found -1; expected a whole number from 0 to 2147483647".into(),
        ),
        (
            with("checkpoint:\n  mode: EXACTLY_ONCE"),
            "spec.checkpoint.mode (line 8): found \"EXACTLY_ONCE\"; expected ExactlyOnce or AtLeastOnce; did you mean \
             ExactlyOnce?"
                .into(),
        ),
        (
            with("checkpoint:\n  retention: Keep"),
            "spec.checkpoint.retention (line 8): found \"Keep\"; expected RetainOnCancellation, DeleteOnCancellation or \
             None"
                .into(),
        ),
        (
            with("checkpoint:\n  retained: 0"),
            "spec.checkpoint.retained (line 8): found 0; expected a whole number from 1 to 1000".into(),
        ),
        (
            with("checkpoint:\n  incremental: 'true'"),
            "spec.checkpoint.incremental (line 8): found \"true\"; expected true or false (without quotes)".into(),
        ),
        (
            with("checkpoint:\n  unaligned: {enabled: true}"),
            "spec.checkpoint.unaligned (line 8): there is no such field; spec.checkpoint has: compression, incremental, interval, \
             maxConcurrent, minPause, mode, retained, retention, timeout, tolerableFailures"
                .into(),
        ),
        (
            with("storage: {}"),
            "spec.storage (line 7): found none of its alternatives; expected exactly one of directory, \
             persistentVolumeClaim, s3"
                .into(),
        ),
        (
            with("storage:\n  directory: a\n  s3: {bucket: abc}"),
            "spec.storage (line 7): found directory and s3; expected exactly one of directory, persistentVolumeClaim, s3"
                .into(),
        ),
        (with("storage:\n  s3: {}"), "spec.storage.s3.bucket (line 8): it is missing; expected a string".into()),
        (
            with("storage:\n  s3:\n    bucket: ab"),
            "spec.storage.s3.bucket (line 9): found \"ab\"; expected 3 to 63 characters".into(),
        ),
        (
            with("storage:\n  s3:\n    bucket: abc\n    endpoint: localhost:9000"),
            "spec.storage.s3.endpoint (line 10): found \"localhost:9000\"; expected an address that begins with http:// \
             or https://"
                .into(),
        ),
        (
            with("storage:\n  persistentVolumeClaim: {}"),
            "spec.storage.persistentVolumeClaim (line 8): found none of its alternatives; expected exactly one of \
             claimName, template"
                .into(),
        ),
        (with("stateBackend: RocksDB"), "spec.stateBackend (line 7): RocksDB is not available yet; use HashMap".into()),
        (
            with("stateBackend: hashmap"),
            "spec.stateBackend (line 7): found \"hashmap\"; expected HashMap or RocksDB; did you mean HashMap?".into(),
        ),
        (
            with("restartStrategy: {}"),
            format!("spec.restartStrategy (line 7): found none of its alternatives; {alternatives}"),
        ),
        (
            with("restartStrategy:\n  none:"),
            format!("spec.restartStrategy (line 7): found none of its alternatives; {alternatives}"),
        ),
        (
            with("restartStrategy:\n  none: {}\n  fixedDelay: {}"),
            format!("spec.restartStrategy (line 7): found none and fixedDelay; {alternatives}"),
        ),
        (
            with("restartStrategy: fixed-delay"),
            "spec.restartStrategy (line 7): found \"fixed-delay\"; expected the fields exponentialDelay, failureRate, \
             fixedDelay, none"
                .into(),
        ),
        (
            with("restartStrategy:\n  none: {attempts: 1}"),
            "spec.restartStrategy.none.attempts (line 8): there is no such field; spec.restartStrategy.none has no fields"
                .into(),
        ),
        (
            with("restartStrategy:\n  fixedDelay:\n    attempts: -1"),
            "spec.restartStrategy.fixedDelay.attempts (line 9): found -1; expected a whole number from 0 to 2147483647"
                .into(),
        ),
        (
            with("restartStrategy:\n  failureRate:\n    interval: 0s"),
            "spec.restartStrategy.failureRate.interval (line 9): found 0s; expected at least 1ms".into(),
        ),
        (
            with("restartStrategy:\n  exponentialDelay:\n    initialBackoff: 5s\n    maxBackoff: 5s"),
            "spec.restartStrategy.exponentialDelay.maxBackoff (line 10): found 5s, not longer than initialBackoff 5s; make \
             it longer, or use fixedDelay"
                .into(),
        ),
        (
            with("restartStrategy:\n  exponentialDelay:\n    backoffMultiplier: 1.5"),
            "spec.restartStrategy.exponentialDelay.backoffMultiplier (line 9): found 1.5; expected a decimal number in \
             quotes, for example \"1.5\""
                .into(),
        ),
        (
            with("restartStrategy:\n  exponentialDelay:\n    backoffMultiplier: '1.0'"),
            "spec.restartStrategy.exponentialDelay.backoffMultiplier (line 9): found 1; expected a number greater than 1"
                .into(),
        ),
        (
            with("restartStrategy:\n  exponentialDelay:\n    jitterFactor: '1.1'"),
            "spec.restartStrategy.exponentialDelay.jitterFactor (line 9): found 1.1; expected a number from 0 to 1".into(),
        ),
        (with("failover: region"), "spec.failover (line 7): found \"region\"; expected Region or Full; did you mean Region?".into()),
        (
            with("heartbeat:\n  interval: 10s\n  timeout: 10s"),
            "spec.heartbeat.timeout (line 9): found 10s, not longer than interval 10s; make it several intervals long".into(),
        ),
        (
            with("restoreFrom: {}"),
            "spec.restoreFrom (line 7): found none of its alternatives; expected exactly one of path, savepointRef, \
             latestRetained"
                .into(),
        ),
        (
            with("restoreFrom:\n  path: hdfs://cluster/savepoint-1-2"),
            "spec.restoreFrom.path (line 8): found hdfs://cluster/savepoint-1-2; expected a directory or \
             s3://bucket/prefix"
                .into(),
        ),
        (
            with("restoreFrom:\n  path: a\n  claimMode: claim"),
            "spec.restoreFrom.claimMode (line 9): found \"claim\"; expected Claim or NoClaim; did you mean Claim?".into(),
        ),
        (
            with("storage:\n  savepointDir: 's3://'"),
            "spec.storage.savepointDir (line 8): found s3://; expected a directory or s3://bucket/prefix".into(),
        ),
        (
            with("checkpoint:\n  compression: Gzip"),
            "spec.checkpoint.compression (line 8): found \"Gzip\"; expected None, Lz4 or Zstd".into(),
        ),
        (with("env: {A: 1}"), "spec.env (line 7): found a group of fields; expected a list".into()),
        (
            with("env:\n  - name: A\n    value: 5"),
            "spec.env[0].value (line 9): found 5; expected a string (put it in quotes)".into(),
        ),
        (
            with("env:\n  - name: A\n    value: x\n  - name: A\n    value: z"),
            "spec.env[1].name (line 10): there is another entry with the name A; keep one of them".into(),
        ),
        (
            with("env:\n  - name: A"),
            "spec.env[0] (line 8): found none of its alternatives; expected exactly one of value, valueFrom".into(),
        ),
        (
            with("env:\n  - name: 1A\n    value: x"),
            "spec.env[0].name (line 8): found \"1A\"; expected letters, digits and '_', not beginning with a digit".into(),
        ),
        (
            with("env:\n  - name: A\n    valueFrom:\n      secretKeyRef: {name: s}"),
            "spec.env[0].valueFrom.secretKeyRef.key (line 10): it is missing; expected a string".into(),
        ),
        (with("restartNonce: -1"), "spec.restartNonce (line 7): found -1; expected a whole number of at least 0".into()),
        (
            with("paralelism: 2"),
            "spec.paralelism (line 7): there is no such field; spec has: checkpoint, coordinator, deletion, env, failover, \
             heartbeat, image, imagePullPolicy, imagePullSecrets, maxParallelism, parallelism, program, restartNonce, \
             restartStrategy, restoreFrom, savepoints, state, stateBackend, storage, upgrade, workers; did you mean \
             parallelism?"
                .into(),
        ),
        (
            with("workers:\n  resources:\n    limits: {cpu: [1]}"),
            "spec.workers.resources.limits.cpu (line 9): found a list; expected a quantity, for example 2, \"500m\" or \
             \"4Gi\""
                .into(),
        ),
    ];
    let mut wrong = Vec::new();
    for (yaml, expected) in &table {
        let found = streamjob_api::parse(yaml).map_or_else(|error| error.to_string(), |_| "no error".into());
        if found != *expected {
            wrong.push(format!("{yaml}\n  expected: {expected}\n  found:    {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(table.len() >= 40);
}

#[test]
fn no_yaml() {
    let table = [
        ("a: [1, 2\nb: }", "line 2, column 2: no valid YAML: illegal placement of ':' indicator"),
        ("a: 1\na: 2\n", "line 2, column 1: no valid YAML: the field a is there twice; keep one of them"),
        ("a: 1\n\tb: 2\n", "line 1, column 4: no valid YAML: while scanning a plain scalar, found a tab"),
        ("a: 'x", "line 1, column 4: no valid YAML: unclosed quote"),
        (
            "a: 1\n---\nb: 2\n",
            "line 3, column 1: no valid YAML: a second document begins; write every job into a file of its own",
        ),
    ];
    for (yaml, expected) in table {
        assert_eq!(streamjob_api::parse(yaml).unwrap_err().to_string(), expected, "{yaml:?}");
    }
}
