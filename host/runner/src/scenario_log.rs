//! What a scenario's worker may write into the runner's log, and the same lines on their way to the
//! scenario's own log; beside them, what its shadow found.
//!
//! Invariants: plugins' lines and the worker's own standard error stay within one budget, restarts included,
//! whatever the worker does: it keeps to the same budget by itself, but is not trusted. Who logs never waits:
//! a task of its own publishes what was gathered, and what finds no room meanwhile is counted. What is not
//! published when the runner dies is lost.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use framehook_core::{
    compare::FrameDifference,
    ids::{Generation, ScenarioId},
    job::{LogLevel, PluginLog},
    log_budget::{LogBudget, LogLimits},
    message::{Envelope, Message},
    prediction::Attribute,
    scenario_log::{LogLine, LoggedLines, MAX_LINE},
    shadow::{Recent, ShadowDifference, ShadowFindings, ShadowSummary},
    size::json_bytes,
    text::one_line,
    topic::Topic,
};
use framehook_infra::{
    backoff::Backoff,
    bus::{Record, SharedBus},
};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Batches of one scenario begin at least this far apart: a person who follows the lines is not faster, and
/// each batch is a transaction somewhere. The first line does not wait.
const PACE: Duration = Duration::from_secs(1);

/// Lines of one batch, ten times as many as a scenario may log in a second by default; an operator who allows
/// more finds the rest in the runner's log alone.
const MAX_BATCH: usize = 500;

/// Bytes of JSON of one batch: half of what is kept of a scenario.
const MAX_BATCH_BYTES: usize = 256 << 10;

/// The bus takes a batch within milliseconds. One that is away does not keep a deployment from ending.
const LAST_BATCH: Duration = Duration::from_secs(1);

/// The log of one deployment. Clones share it.
#[derive(Clone)]
pub(crate) struct ScenarioLog(Arc<Shared>);

struct Shared {
    book: Mutex<Book>,
    /// There is something to publish.
    filled: Notify,
}

struct Book {
    budget: LogBudget,
    /// For the lines of the shadow's hooks, so that they take no room from the others.
    shadow_budget: LogBudget,
    lines: Vec<LogLine>,
    bytes: usize,
    /// The number of the first of them.
    first: u64,
    /// Lines for which there was no room.
    cut: u64,
    found: Found,
}

/// What a shadow found and is not published yet.
#[derive(Default)]
struct Found {
    summary: Option<ShadowSummary>,
    differences: Recent,
}

impl ScenarioLog {
    pub(crate) fn new(limits: LogLimits) -> Self {
        let now = std::time::Instant::now();
        let (budget, shadow_budget) = (LogBudget::new(limits, now), LogBudget::new(limits.of_shadow(), now));
        let (lines, found) = (Vec::new(), Found::default());
        let book = Book { budget, shadow_budget, lines, bytes: 0, first: 0, cut: 0, found };
        Self(Arc::new(Shared { book: Mutex::new(book), filled: Notify::new() }))
    }

    /// Whether a line of this many bytes may be logged now. Says how many could not, once a second.
    pub(crate) fn admits(&self, bytes: usize) -> bool {
        let mut book = self.0.book.lock();
        let admitted = book.budget.admit(bytes, std::time::Instant::now());
        book.tell_left_out(admitted.unwrap_or_default());
        admitted.is_some()
    }

    /// A line that the worker passed on.
    pub(crate) fn line(&self, line: &PluginLog) {
        let is_admitted = if line.shadow { self.admits_of_shadow(line.bytes()) } else { self.admits(line.bytes()) };
        if !is_admitted {
            return;
        }
        let line = presentable(line);
        show(&line);
        self.add(line);
    }

    /// The same for a line of the shadow's hooks. What is left out of them is told of by the worker alone.
    fn admits_of_shadow(&self, bytes: usize) -> bool {
        self.0.book.lock().shadow_budget.admit(bytes, std::time::Instant::now()).is_some()
    }

    /// What the shadow found so far, and which differences are new.
    pub(crate) fn compared(&self, summary: ShadowSummary, differences: Vec<FrameDifference>) {
        let mut book = self.0.book.lock();
        book.found.summary = Some(summary);
        differences.into_iter().for_each(|difference| book.found.differences.push(difference));
        drop(book);
        self.0.filled.notify_one();
    }

    /// A line of the platform, which the runner's log has in other words.
    pub(crate) fn tell(&self, level: LogLevel, target: &str, message: &str) {
        self.add(presentable(&PluginLog::of_platform(level, target, message.to_owned())));
    }

    fn add(&self, line: LogLine) {
        self.0.book.lock().add(line);
        self.0.filled.notify_one();
    }
}

impl Book {
    fn add(&mut self, line: LogLine) {
        let size = json_bytes(&line);
        if size > MAX_LINE || self.bytes + size > MAX_BATCH_BYTES || self.lines.len() >= MAX_BATCH {
            self.cut += 1;
            return;
        }
        self.bytes += size;
        self.lines.push(line);
    }

    fn tell_left_out(&mut self, lines: u64) {
        if lines > 0 {
            let message = self.budget.left_out(lines);
            tracing::warn!("{message}");
            self.add(presentable(&PluginLog::of_platform(LogLevel::Warn, "log", message)));
        }
    }

    /// What is to be published next.
    fn take(&mut self) -> Option<(u64, Vec<LogLine>)> {
        if self.cut > 0 {
            let message = format!("{} lines are in the log of the runner alone: there was no room for them", self.cut);
            self.cut = 0;
            self.lines.push(presentable(&PluginLog::of_platform(LogLevel::Warn, "log", message)));
        }
        let (first, lines) = (self.first, std::mem::take(&mut self.lines));
        self.first += lines.len() as u64;
        self.bytes = 0;
        (!lines.is_empty()).then_some((first, lines))
    }
}

impl Found {
    /// What is to be published next.
    fn take(&mut self, (scenario_id, generation): (ScenarioId, Generation)) -> Option<ShadowFindings> {
        let summary = self.summary.take()?;
        let (first, differences) = self.differences.take();
        let revision = summary.revision;
        let differences = differences.into_iter().map(|difference| ShadowDifference { revision, difference }).collect();
        Some(ShadowFindings { scenario_id, generation, summary, first, differences })
    }
}

impl Drop for Book {
    fn drop(&mut self) {
        let lines = self.budget.rest();
        self.tell_left_out(lines);
    }
}

/// Publishes what one deployment logs.
pub(crate) struct LogPublisher {
    log: ScenarioLog,
    closing: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl LogPublisher {
    pub(crate) fn new(log: ScenarioLog, bus: SharedBus, scenario_id: ScenarioId, generation: Generation) -> Self {
        let closing = CancellationToken::new();
        let publish = publish_all(log.clone(), bus, (scenario_id, generation), closing.clone());
        Self { log, closing, task: AbortOnDropHandle::new(tokio::spawn(publish)) }
    }

    /// Publishes the rest, if the bus takes it now.
    pub(crate) async fn close(&mut self) {
        {
            let mut book = self.log.0.book.lock();
            let lines = book.budget.rest();
            book.tell_left_out(lines);
        }
        self.closing.cancel();
        if timeout(LAST_BATCH, &mut self.task).await.is_err() {
            tracing::debug!("the last lines of the scenario's log were not published");
        }
    }
}

async fn publish_all(
    log: ScenarioLog,
    bus: SharedBus,
    (scenario_id, generation): (ScenarioId, Generation),
    closing: CancellationToken,
) {
    loop {
        let is_closing = closing.is_cancelled();
        let (taken, found) = {
            let mut book = log.0.book.lock();
            (book.take(), book.found.take((scenario_id, generation)))
        };
        if taken.is_none() && found.is_none() {
            if is_closing {
                return;
            }
            tokio::select! {
                () = log.0.filled.notified() => {}
                () = closing.cancelled() => {}
            }
            continue;
        }
        let begun = Instant::now();
        if let Some((first, lines)) = taken {
            publish(&bus, Message::Logged(LoggedLines { scenario_id, generation, first, lines })).await;
        }
        if let Some(found) = found {
            publish(&bus, Message::Shadow(found)).await;
        }
        tokio::select! {
            () = sleep_until(begun + PACE) => {}
            () = closing.cancelled() => {}
        }
    }
}

/// Again and again, until the bus takes it: what comes twice is stored once.
async fn publish(bus: &SharedBus, message: Message) {
    let envelope = Envelope::new(message, Timestamp::now());
    let Ok(record) = Record::try_from(&envelope) else { return };
    let mut backoff = Backoff::default();
    while let Err(error) = bus.publish(Topic::ScenarioLogs, vec![record.clone()]).await {
        tracing::debug!(%error, "a scenario's log could not be published; it is tried again");
        sleep(backoff.next_delay()).await;
    }
}

/// The worker has made it one line already, if it is still ours.
fn presentable(line: &PluginLog) -> LogLine {
    let fields = line.fields.iter().map(|(key, value)| {
        let value = match value {
            Attribute::Text(text) => Attribute::Text(one_line(text).into_owned()),
            other => other.clone(),
        };
        (one_line(key).into_owned(), value)
    });
    let [plugin, target, message] = [&line.plugin, &line.target, &line.message].map(|text| one_line(text).into_owned());
    LogLine {
        at: Timestamp::from_microsecond(Timestamp::now().as_microsecond()).unwrap_or_default(),
        frame: line.frame,
        level: line.level,
        plugin,
        target,
        message,
        fields: fields.collect::<BTreeMap<_, _>>(),
        shadow: line.shadow,
    }
}

/// The fields of a line, as `tracing` writes them behind its message.
#[must_use]
pub fn told(fields: &BTreeMap<String, Attribute>) -> String {
    let field = |(key, value): (&String, &Attribute)| match value {
        Attribute::Text(text) => format!(" {key}={text:?}"),
        other => format!(" {key}={}", serde_json::to_string(other).unwrap_or_default()),
    };
    fields.iter().map(field).collect()
}

/// Writes a line into the runner's log, its fields as `tracing` writes them.
fn show(line: &LogLine) {
    let LogLine { plugin, target: from, .. } = line;
    let whose = if line.shadow { "shadow: " } else { "" };
    let message = format!("{whose}{}{}", line.message, told(&line.fields));
    macro_rules! event {
        ($level:ident) => {
            tracing::$level!(plugin, from, "{message}")
        };
    }
    match line.level {
        LogLevel::Trace => event!(trace),
        LogLevel::Debug => event!(debug),
        LogLevel::Info => event!(info),
        LogLevel::Warn => event!(warn),
        LogLevel::Error => event!(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str) -> PluginLog {
        PluginLog { plugin: "p@1".into(), ..PluginLog::of_platform(LogLevel::Info, "t", message.into()) }
    }

    fn messages(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(|line| line.message.as_str()).collect()
    }

    #[test]
    fn lines_of_a_shadow_take_no_room_from_the_others() {
        let log = ScenarioLog::new(LogLimits { lines: 4, bytes: u32::MAX });
        (0..1000).for_each(|_| log.line(&PluginLog { shadow: true, ..line("noise") }));
        (0..4).for_each(|_| log.line(&line("own")));
        let (_, lines) = log.0.book.lock().take().unwrap();
        let of = |shadow| lines.iter().filter(|line| line.shadow == shadow && line.plugin == "p@1").count();
        assert_eq!(of(false), 4);
        assert!((1..1000).contains(&of(true)), "{}", of(true));
    }

    #[test]
    fn what_finds_no_room_is_counted_and_numbers_go_on() {
        let log = ScenarioLog::new(LogLimits { lines: u32::MAX, bytes: u32::MAX });
        (0..MAX_BATCH + 7).for_each(|n| log.line(&line(&n.to_string())));
        let (first, lines) = log.0.book.lock().take().unwrap();
        assert_eq!((first, lines.len()), (0, MAX_BATCH + 1));
        assert_eq!((&*lines[MAX_BATCH - 1].message, &*lines[MAX_BATCH].plugin), ("499", "framehook"));
        assert!(lines[MAX_BATCH].message.starts_with("7 lines are in the log of the runner alone"));
        assert!(log.0.book.lock().take().is_none());

        // A worker that is no longer ours does not keep to what one line may have.
        log.line(&line(&"x".repeat(MAX_LINE)));
        log.line(&PluginLog { fields: [("k\n".into(), Attribute::Text("\u{1b}".into()))].into(), ..line("a\nb") });
        let (first, lines) = log.0.book.lock().take().unwrap();
        assert_eq!((first, messages(&lines)[0]), (MAX_BATCH as u64 + 1, "a\\nb"));
        assert_eq!(lines[0].fields, [("k\\n".to_owned(), Attribute::Text("\\u{1b}".into()))].into());
        assert!(lines[1].message.starts_with("1 lines"), "{lines:?}");
        (0..200).for_each(|_| log.line(&line(&"x".repeat(2000))));
        let (_, lines) = log.0.book.lock().take().unwrap();
        assert!(json_bytes(&lines) < MAX_BATCH_BYTES + 1024 && lines.len() > 100, "{}", lines.len());
    }

    #[test]
    fn a_flood_is_within_the_budget_and_told() {
        let log = ScenarioLog::new(LogLimits { lines: 5, bytes: 1000 });
        (0..100).for_each(|_| log.line(&line("x")));
        let mut book = log.0.book.lock();
        let left_out = book.budget.rest();
        book.tell_left_out(left_out);
        let (_, lines) = book.take().unwrap();
        assert_eq!(messages(&lines)[..5], ["x"; 5]);
        assert!(lines[5].message.starts_with("95 lines were left out") && lines.len() == 6, "{lines:?}");
    }
}
