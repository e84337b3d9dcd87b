//! Random kills of workers, coordinator and operator, and changes of the spec in between, while nothing may be lost or counted twice.
//!
//! The seed is printed; `STREAMJOB_E2E_SEED` repeats its choices (not the moments at which the machine comes to them).

use crate::harness::{Cluster, Job, Storage, Story};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

on_each_storage!(random_kills, soak);

const KILLS: usize = 20;
/// One change of the spec after so many kills.
const CHANGE_EVERY: usize = 5;

async fn random_kills(storage: Storage) {
    let story = Story::begin("chaos", storage).await;
    chaos(&story, |kills, _| kills >= KILLS).await;
    story.end().await;
}

/// The same for an hour, or `SOAK_MINUTES`; run by `make soak`.
async fn soak(storage: Storage) {
    let minutes = std::env::var("SOAK_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let story = Story::begin("soak", storage).await;
    chaos(&story, |_, passed| passed >= Duration::from_secs(60 * minutes / 2)).await;
    story.end().await;
}

async fn chaos(story: &Story, enough: impl Fn(usize, Duration) -> bool) {
    let mut random = Random::new();
    println!("{}: seed {}", story.namespace, random.seed);
    let manifest = story.counting("counting");
    let job = story.apply(&manifest).await;
    job.ready().await;
    let (begun, mut kills, mut changes, mut parallelism) = (Instant::now(), 0, 0, 2);
    let mut counted = [0; 4];
    while !enough(kills, begun.elapsed()) {
        let kind = random.below(4);
        if kill(&job, kind, &mut random).await {
            kills += 1;
            counted[kind] += 1;
            if kills % CHANGE_EVERY == 0 {
                changes += 1;
                parallelism = if changes % 2 == 0 { parallelism } else { 1 + random.below(3) };
                let changed = manifest.clone().edited(changes).set("/parallelism", serde_json::json!(parallelism));
                story.apply(&changed).await;
            }
        }
        // Sometimes the next one hits before the job is up again, sometimes after.
        tokio::time::sleep(Duration::from_millis(random.below(6000) as u64)).await;
        // A look from outside, now and then: no number is visible twice while all this happens.
        if kills % 7 == 0 {
            job.check_so_far().await;
        }
    }
    job.ready().await;
    job.another_checkpoint().await;
    println!(
        "{}: {kills} kills in {:?} (worker {}, coordinator {}, both {}, operator {}), {changes} changes of the spec; {:?}",
        story.namespace,
        begun.elapsed(),
        counted[0],
        counted[1],
        counted[2],
        counted[3],
        job.history().await
    );
    job.check_suspended().await;
}

/// Kills something; false when it was not there.
async fn kill(job: &Job<'_>, kind: usize, random: &mut Random) -> bool {
    let workers = job.pods_of("worker").await;
    let coordinators = job.pods_of("coordinator").await;
    match kind {
        0 | 1 => {
            let pods = if kind == 0 { workers } else { coordinators };
            !pods.is_empty() && delete(&job.story.api(), &pods[random.below(pods.len())]).await
        }
        2 => {
            let mut any = false;
            for pod in workers.iter().chain(&coordinators) {
                any |= delete(&job.story.api(), pod).await;
            }
            any
        }
        _ => kill_operator(&job.story.cluster).await,
    }
}

async fn kill_operator(cluster: &Cluster) -> bool {
    match cluster.operators().await.first() {
        Some(pod) => cluster.kill_operator(pod).await,
        None => false,
    }
}

async fn delete(pods: &Api<Pod>, name: &str) -> bool {
    match pods.delete(name, &DeleteParams::default().grace_period(0)).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if status.code == 404 => false,
        Err(error) => panic!("killing {name}: {error}"),
    }
}

/// xorshift64*: good enough to choose what dies.
struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    fn new() -> Random {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_nanos() as u64;
        let seed = std::env::var("STREAMJOB_E2E_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(now) | 1;
        Random { seed, state: seed }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }
}
