//! Counters as Prometheus reads them (text exposition format 0.0.4).
//!
//! The names come from the JSON form: `disks.base.reads` is `husk_vmm_disk_reads{id="base"}`, `vcpus[0].cpu_ns` is
//! `husk_vmm_vcpu_cpu_ns{id="0"}`, `balloon.inflated_pages` is `husk_vmm_balloon_inflated_pages`.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write},
};

use serde_json::{Map, Value};

/// All samples of a metric: its type, and lines that begin with what follows its name.
type Families = BTreeMap<String, (&'static str, Vec<String>)>;

/// Renders the JSON form of [`Counters`](crate::counters::Counters).
pub fn render(counters: &Value) -> String {
    let mut families = Families::new();
    for (group, value) in counters.as_object().into_iter().flatten() {
        let each = group.strip_suffix('s').unwrap_or(group);
        match value {
            Value::Array(items) => {
                for (id, item) in items.iter().enumerate() {
                    add_item(&mut families, each, Some(&id), item);
                }
            }
            Value::Object(items) if group.ends_with('s') => {
                for (id, item) in items {
                    add_item(&mut families, each, Some(id), item);
                }
            }
            single => add_item(&mut families, group, None, single),
        }
    }
    let mut text = String::new();
    for (name, (kind, samples)) in families {
        // Writing to a string can't fail.
        let _ = writeln!(text, "# TYPE {name} {kind}");
        for sample in samples {
            let _ = writeln!(text, "{name}{sample}");
        }
    }
    text
}

fn add_item(families: &mut Families, group: &str, id: Option<&dyn Display>, item: &Value) {
    // Ids are printable ASCII without spaces.
    let label = id.map(|id| format!("id=\"{}\"", id.to_string().replace('\\', "\\\\").replace('"', "\\\"")));
    let label = label.as_deref();
    for (field, value) in item.as_object().into_iter().flatten() {
        let name = format!("husk_vmm_{group}_{field}");
        match value {
            Value::Object(histogram) => add_histogram(families, &format!("{name}_us"), label, histogram),
            Value::Number(number) => {
                let labels = label.map_or(String::new(), |label| format!("{{{label}}}"));
                let (_, samples) = families.entry(name).or_insert(("untyped", Vec::new()));
                samples.push(format!("{labels} {number}"));
            }
            _ => {}
        }
    }
}

fn add_histogram(families: &mut Families, name: &str, label: Option<&str>, histogram: &Map<String, Value>) {
    let (_, samples) = families.entry(name.to_owned()).or_insert(("histogram", Vec::new()));
    let with = label.map_or(String::new(), |label| format!("{label},"));
    let count = &histogram["count"];
    for bound in histogram["le_us"].as_array().into_iter().flatten() {
        samples.push(format!("_bucket{{{with}le=\"{}\"}} {}", bound[0], bound[1]));
    }
    samples.push(format!("_bucket{{{with}le=\"+Inf\"}} {count}"));
    let labels = label.map_or(String::new(), |label| format!("{{{label}}}"));
    samples.push(format!("_sum{labels} {}", histogram["sum_us"]));
    samples.push(format!("_count{labels} {count}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_become_labels() {
        let text = render(&serde_json::json!({
            "vcpus": [{"pio_exits": 3}, {"pio_exits": 4}],
            "disks": {"a\"b": {"reads": 1, "latency": {"le_us": [[1, 2], [2, 5]], "sum_us": 9, "count": 6}}},
            "rng": {"bytes": 7},
            "absent": null,
        }));
        let expected = "# TYPE husk_vmm_disk_latency_us histogram
husk_vmm_disk_latency_us_bucket{id=\"a\\\"b\",le=\"1\"} 2
husk_vmm_disk_latency_us_bucket{id=\"a\\\"b\",le=\"2\"} 5
husk_vmm_disk_latency_us_bucket{id=\"a\\\"b\",le=\"+Inf\"} 6
husk_vmm_disk_latency_us_sum{id=\"a\\\"b\"} 9
husk_vmm_disk_latency_us_count{id=\"a\\\"b\"} 6
# TYPE husk_vmm_disk_reads untyped
husk_vmm_disk_reads{id=\"a\\\"b\"} 1
# TYPE husk_vmm_rng_bytes untyped
husk_vmm_rng_bytes 7
# TYPE husk_vmm_vcpu_pio_exits untyped
husk_vmm_vcpu_pio_exits{id=\"0\"} 3
husk_vmm_vcpu_pio_exits{id=\"1\"} 4
";
        assert_eq!(text, expected);
    }
}
