//! What a Prometheus server may scrape of the plugins that this runner called, by plugin and not by scenario.
//!
//! Invariant: the number of series is bounded, whatever names there are: by [`MAX_PLUGINS`] and
//! [`MAX_NAMES`].
//!
//! Counters and histograms are added up over scenarios, also over those that have ended. A gauge is what
//! something is now, so there is one only while a scenario runs: its sum over the scenarios that have set it,
//! beside their number, of which the mean can be made, over runners as well.

use std::{collections::BTreeMap, fmt, sync::Arc};

use framehook_core::{
    hook_metrics::{BOUNDS, Histogram, Metric},
    hook_stats::{HookStage, HookStats},
    message::WorkerStatus,
};
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

/// Plugins, each version and stage by itself: those beyond are counted together, as the plugin `other`.
const MAX_PLUGINS: usize = 200;
/// Names of metrics, of all plugins together: those beyond are left out here. A histogram is 31 series.
const MAX_NAMES: usize = 1_000;

/// Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct PluginMetrics(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    totals: BTreeMap<Plugin, HookStats>,
    /// Sum and number of scenarios, by plugin and name.
    gauges: BTreeMap<(Plugin, String), (f64, u64)>,
}

/// `name@version`.
type Plugin = (String, HookStage);

impl PluginMetrics {
    /// Adds what is new of the hooks of a scenario.
    pub(crate) fn count(&self, new: Vec<HookStats>) {
        let mut inner = self.0.lock();
        for hook in new {
            inner.count(hook);
        }
    }

    /// Takes the gauges of those workers that have not ended.
    pub(crate) fn workers<'a>(&self, workers: impl Iterator<Item = &'a WorkerStatus>) {
        let mut inner = self.0.lock();
        inner.gauges.clear();
        for hook in workers.filter(|worker| !worker.phase.is_ended()).flat_map(|worker| &worker.hooks) {
            inner.gauge(hook);
        }
    }
}

impl Inner {
    fn plugin(&self, hook: &HookStats) -> Plugin {
        let plugin = (hook.plugin.clone(), hook.stage);
        let is_known = self.totals.contains_key(&plugin) || self.totals.len() < MAX_PLUGINS;
        if is_known { plugin } else { ("other@".to_owned(), hook.stage) }
    }

    fn count(&mut self, mut hook: HookStats) {
        let plugin = self.plugin(&hook);
        let names: usize = self.totals.values().map(|totals| totals.metrics.len()).sum();
        let mut room = MAX_NAMES.saturating_sub(names);
        let none = || HookStats::new(plugin.0.clone(), plugin.1);
        let totals = self.totals.entry(plugin.clone()).or_insert_with(none);
        hook.metrics.retain(|name, _| {
            let is_new = !totals.metrics.contains_key(name);
            let fits = !is_new || room > 0;
            room -= usize::from(is_new && fits);
            fits
        });
        totals.add(&hook);
    }

    fn gauge(&mut self, hook: &HookStats) {
        let plugin = self.plugin(hook);
        for (name, metric) in &hook.metrics {
            let Metric::Gauge(value) = metric else { continue };
            let key = (plugin.clone(), name.clone());
            if self.gauges.len() < MAX_NAMES || self.gauges.contains_key(&key) {
                let (sum, scenarios) = self.gauges.entry(key).or_default();
                *sum += value;
                *scenarios += 1;
            }
        }
    }
}

#[derive(Clone, Debug, EncodeLabelSet)]
struct Labels {
    plugin: String,
    version: String,
    stage: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet)]
struct MetricLabels {
    plugin: String,
    version: String,
    stage: &'static str,
    metric: String,
}

fn labels((plugin, stage): &Plugin) -> Labels {
    let (plugin, version) = plugin.split_once('@').unwrap_or((plugin, ""));
    Labels { plugin: plugin.to_owned(), version: version.to_owned(), stage: stage.as_str() }
}

fn metric_labels(of: &Plugin, metric: &str) -> MetricLabels {
    let Labels { plugin, version, stage } = labels(of);
    MetricLabels { plugin, version, stage, metric: metric.to_owned() }
}

type Count = (&'static str, &'static str, fn(&HookStats) -> u64);

const COUNTS: [Count; 12] = [
    ("plugin_calls", "Calls of a plugin for a frame, those that failed among them", |hook| hook.calls),
    ("plugin_traps", "Calls that trapped or panicked", |hook| hook.traps),
    ("plugin_timeouts", "Calls that missed their deadline", |hook| hook.timeouts),
    ("plugin_errors", "Calls that gave an error or an unusable result", |hook| hook.errors),
    ("plugin_not_called", "Frames for which it was not called, because it had failed repeatedly", |h| h.not_called),
    ("plugin_instances", "Instances that were made", |hook| hook.instances),
    ("plugin_detections_in", "Detections that it was given", |hook| hook.detections_in),
    ("plugin_detections_out", "Detections that it returned", |hook| hook.detections_out),
    ("plugin_events", "Events that it returned", |hook| hook.events),
    ("plugin_cut", "Detections that were cut to what can be", |hook| hook.cut),
    ("plugin_dropped", "Detections that were dropped, because they cannot be", |hook| hook.dropped),
    ("plugin_copied_bytes", "Bytes of pixels and elements that were copied into it", |hook| hook.copied_bytes),
];

impl Collector for PluginMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let inner = self.0.lock();
        if inner.totals.is_empty() {
            return Ok(());
        }
        for (name, help, count) in COUNTS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (plugin, totals) in &inner.totals {
                let labels = labels(plugin);
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&count(totals), None)?;
            }
        }
        let help = "Seconds of all calls together, with what the host did for the plugin meanwhile";
        let mut family = encoder.encode_descriptor("plugin_call_seconds", help, None, MetricType::Counter)?;
        for (plugin, totals) in &inner.totals {
            let (labels, seconds) = (labels(plugin), totals.total_us as f64 / 1e6);
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, f64, f64>(&seconds, None)?;
        }
        inner.counters(encoder.encode_descriptor(
            "plugin_metric",
            "Counters of plugins' own",
            None,
            MetricType::Counter,
        )?)?;
        inner.histograms(encoder.encode_descriptor(
            "plugin_metric_histogram",
            "Histograms of plugins' own",
            None,
            MetricType::Histogram,
        )?)?;
        let help = "Gauges of plugins' own: the sum over the scenarios that run and have set it";
        let mut family = encoder.encode_descriptor("plugin_metric_gauge", help, None, MetricType::Gauge)?;
        for ((plugin, name), (sum, _)) in &inner.gauges {
            family.encode_family(&metric_labels(plugin, name))?.encode_gauge(sum)?;
        }
        let help = "Scenarios that run and have set the gauge of a plugin";
        let mut family = encoder.encode_descriptor("plugin_metric_gauge_scenarios", help, None, MetricType::Gauge)?;
        for ((plugin, name), (_, scenarios)) in &inner.gauges {
            family.encode_family(&metric_labels(plugin, name))?.encode_gauge(scenarios)?;
        }
        Ok(())
    }
}

impl Inner {
    fn metrics(&self) -> impl Iterator<Item = (MetricLabels, &Metric)> {
        self.totals.iter().flat_map(|(plugin, totals)| {
            totals.metrics.iter().map(move |(name, metric)| (metric_labels(plugin, name), metric))
        })
    }

    fn counters(&self, mut family: MetricEncoder<'_>) -> fmt::Result {
        for (labels, metric) in self.metrics() {
            if let Metric::Counter(count) = metric {
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(count, None)?;
            }
        }
        Ok(())
    }

    fn histograms(&self, mut family: MetricEncoder<'_>) -> fmt::Result {
        for (labels, metric) in self.metrics() {
            if let Metric::Histogram(histogram) = metric {
                let Histogram { sum, buckets } = histogram;
                let bounds = BOUNDS.into_iter().chain([f64::MAX]);
                let buckets: Vec<_> = bounds.zip(buckets.iter().copied()).collect();
                let count = histogram.count();
                family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(*sum, count, &buckets, None)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use framehook_core::{hook_metrics::Metrics, ids::ScenarioId, message::WorkerPhase};
    use prometheus_client::{encoding::text, registry::Registry};

    use super::*;

    fn hook(plugin: &str, calls: u64, metrics: &[(&str, Metric)]) -> HookStats {
        let metrics = metrics.iter().map(|(name, metric)| ((*name).to_owned(), metric.clone()));
        let metrics = metrics.collect::<Metrics>();
        HookStats { calls, total_us: 2_500_000, metrics, ..HookStats::new(plugin.into(), HookStage::Post) }
    }

    fn worker(phase: WorkerPhase, hook: HookStats) -> WorkerStatus {
        WorkerStatus { hooks: vec![hook], ..WorkerStatus::new(ScenarioId::generate(), 1, phase) }
    }

    fn shown(metrics: &PluginMetrics) -> String {
        let mut registry = Registry::with_prefix("framehook");
        registry.register_collector(Box::new(metrics.clone()));
        let mut shown = String::new();
        text::encode(&mut shown, &registry).unwrap();
        shown
    }

    #[test]
    fn counts_are_those_of_all_scenarios_and_gauges_of_those_that_run() {
        let metrics = PluginMetrics::default();
        assert_eq!(shown(&metrics), "# EOF\n");
        let mut histogram = Histogram::default();
        [0.5, 3.0, 2e6].into_iter().for_each(|value| histogram.observe(value));
        let own = [("n", Metric::Counter(2)), ("h", Metric::Histogram(histogram)), ("g", Metric::Gauge(1.5))];
        metrics.count(vec![hook("a@1.0", 3, &own), hook("a@1.0", 4, &own)]);
        let gauge = |value| hook("a@1.0", 1, &[("g", Metric::Gauge(value))]);
        let workers = [(WorkerPhase::Running, 1.5), (WorkerPhase::Degraded, 2.0), (WorkerPhase::Finished, 9.0)];
        metrics.workers(workers.map(|(phase, value)| worker(phase, gauge(value))).iter());
        let shown = shown(&metrics);
        let plugin = r#"plugin="a",version="1.0",stage="post""#;
        for line in [
            format!("framehook_plugin_calls_total{{{plugin}}} 7"),
            format!("framehook_plugin_call_seconds_total{{{plugin}}} 5.0"),
            format!("framehook_plugin_metric_total{{{plugin},metric=\"n\"}} 4"),
            format!("framehook_plugin_metric_histogram_sum{{{plugin},metric=\"h\"}} 4000007.0"),
            format!("framehook_plugin_metric_histogram_count{{{plugin},metric=\"h\"}} 6"),
            format!("framehook_plugin_metric_histogram_bucket{{le=\"0.5\",{plugin},metric=\"h\"}} 2"),
            format!("framehook_plugin_metric_histogram_bucket{{le=\"+Inf\",{plugin},metric=\"h\"}} 6"),
            format!("framehook_plugin_metric_gauge{{{plugin},metric=\"g\"}} 3.5"),
            format!("framehook_plugin_metric_gauge_scenarios{{{plugin},metric=\"g\"}} 2"),
        ] {
            assert!(shown.contains(&format!("{line}\n")), "{line} is not in\n{shown}");
        }
    }

    #[test]
    fn there_are_only_so_many_series_whatever_names_there_are() {
        let metrics = PluginMetrics::default();
        let own = |n: usize| hook(&format!("p{n}@1"), 1, &[("x", Metric::Counter(1)), ("y", Metric::Gauge(1.0))]);
        metrics.count((0..MAX_PLUGINS + 10).map(own).collect());
        let calls = |shown: &str| shown.lines().filter(|line| line.starts_with("framehook_plugin_calls_total")).count();
        assert_eq!(calls(&shown(&metrics)), MAX_PLUGINS + 1);
        assert!(shown(&metrics).contains(r#"framehook_plugin_calls_total{plugin="other",version="",stage="post"} 10"#));
        for n in 0..MAX_NAMES {
            metrics.count(vec![hook(&format!("p{}@1", n % 20), 1, &[(&format!("m{n}"), Metric::Counter(1))])]);
        }
        let inner = metrics.0.lock();
        assert_eq!(inner.totals.values().map(|totals| totals.metrics.len()).sum::<usize>(), MAX_NAMES);
    }
}
