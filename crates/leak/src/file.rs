//! Plans as files: JSON that people can read, compare and keep beside a model.
//!
//! ```json
//! {"format": "jali-plan", "version": 3, "network": "vgg3", "made": "random rows, fraction 0.8, seed 7",
//!  "model": "<blake3>",
//!  "layers": [{"name": "conv1", "weights": 864, "open": [[0, 27], [54, 81]]}]}
//! ```
//!
//! `open` lists half-open ranges of weights, in the order of the model file, rising and not
//! touching. `model` is a hash of shapes and weights: a plan is for one model, and says nothing
//! about another. It is not secret from whoever has the model, and tells a guesser of hidden
//! weights whether the guess is right: it belongs to the owner, not to the server.
//!
//! A plan of `jali-audit plan` also holds `evidence`: what was measured about exactly this plan.
//! `network` is a name for people. Versions 1 (without evidence) and 2 (without a name) are read
//! too.

use serde::{Deserialize, Serialize};

use jali_model::Graph;

use crate::{LeakError, Plan};

const FORMAT: &str = "jali-plan";
/// Version that this build writes; it reads all up to it.
pub const VERSION: u32 = 3;

/// The audit's measurements of a plan. Bounds and advantages are fractions of 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The claim in words.
    pub claim: String,
    /// The bound that was asked for.
    pub bound: f64,
    /// Upper end of the worst 95 % interval of the advantage.
    pub upper: f64,
    /// The worst advantage.
    pub advantage: f64,
    /// Labelled images that the attackers had.
    pub budgets: Vec<usize>,
    /// Names of the attackers.
    pub attackers: Vec<String>,
    /// Seeds of the check.
    pub seeds: u64,
    /// Images that attackers were scored on.
    pub scoring: usize,
    /// Version of the audit's method.
    pub method: u32,
    /// [`Plan::digest`] of the plan that it is about.
    pub plan: String,
}

/// Where a plan comes from. It goes into the client's bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// How it was made.
    pub made: String,
    /// Name of the network that it is for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub network: Option<String>,
    /// The audit's measurements, if there are any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub evidence: Option<Evidence>,
}

impl Origin {
    /// Encodes the origin as JSON bytes.
    ///
    /// # Errors
    /// [`LeakError::File`] never in practice.
    pub fn to_bytes(&self) -> Result<Vec<u8>, LeakError> {
        serde_json::to_vec(self).map_err(|e| LeakError::File { why: e.to_string() })
    }

    /// Decodes an origin from JSON bytes.
    ///
    /// # Errors
    /// [`LeakError::File`] with what is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LeakError> {
        let origin: Self = serde_json::from_slice(bytes).map_err(|e| LeakError::File { why: e.to_string() })?;
        origin.check()?;
        Ok(origin)
    }

    /// Refuses texts with control characters: texts are shown, and such characters could forge
    /// lines of what is printed.
    fn check(&self) -> Result<(), LeakError> {
        let claim = self.evidence.as_ref().map(|e| &e.claim);
        let texts = [Some(&self.made), self.network.as_ref(), claim];
        match texts.into_iter().flatten().any(|t| t.contains(char::is_control)) {
            true => Err(LeakError::File { why: "one of its texts holds control characters".into() }),
            false => Ok(()),
        }
    }
}

/// A plan from a file.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanFile {
    /// The permissions.
    pub plan: Plan,
    /// Where they come from.
    pub origin: Origin,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    network: Option<String>,
    made: String,
    model: String,
    layers: Vec<Layer>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    evidence: Option<Evidence>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layer {
    name: String,
    weights: usize,
    open: Vec<[usize; 2]>,
}

/// Returns the hash of a model's linear layers, shapes and weights, in hexadecimal digits: plans
/// name their model by it.
pub fn model_hash(graph: &Graph) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("jali 1 plan: model");
    for (_, linear) in graph.linear_nodes() {
        hasher.update(linear.kind().as_bytes());
        for count in [linear.outputs(), linear.fan_in(), linear.weights().len()] {
            hasher.update(&(count as u64).to_le_bytes());
        }
        linear.weights().iter().for_each(|w| {
            hasher.update(&w.to_le_bytes());
        });
    }
    hasher.finalize().to_hex().to_string()
}

impl Plan {
    /// Returns a name for the plan: a hash of the model and of every permission, in hexadecimal
    /// digits.
    pub fn digest(&self, graph: &Graph) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("jali 1 plan: permissions");
        hasher.update(model_hash(graph).as_bytes());
        for layer in 0..self.counts().len() {
            let ranges = self.open_ranges(layer);
            hasher.update(&(ranges.len() as u64).to_le_bytes());
            ranges.iter().flatten().for_each(|&end| {
                hasher.update(&(end as u64).to_le_bytes());
            });
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Returns the plan as the text of a file; `made` says how it came about.
    ///
    /// # Errors
    /// [`LeakError::Mismatch`] for another network.
    pub fn to_json(&self, graph: &Graph, made: &str) -> Result<String, LeakError> {
        self.to_json_with(graph, &Origin { made: made.into(), network: None, evidence: None })
    }

    /// Returns the plan as the text of a file that says where it comes from.
    ///
    /// # Errors
    /// [`LeakError::Mismatch`] for another network.
    pub fn to_json_with(&self, graph: &Graph, origin: &Origin) -> Result<String, LeakError> {
        self.validate(graph)?;
        let layers = graph.linear_nodes().enumerate().map(|(l, (node, linear))| Layer {
            name: graph.nodes()[node].name.clone(),
            weights: linear.weights().len(),
            open: self.open_ranges(l),
        });
        let file = File {
            format: FORMAT.into(),
            version: VERSION,
            network: origin.network.clone(),
            made: origin.made.clone(),
            model: model_hash(graph),
            layers: layers.collect(),
            evidence: origin.evidence.clone(),
        };
        serde_json::to_string_pretty(&file).map_err(|e| LeakError::File { why: e.to_string() })
    }

    /// Reads a plan for this network; also returns how it was made.
    ///
    /// # Errors
    /// [`LeakError`] as for [`PlanFile::from_json`].
    pub fn from_json(text: &str, graph: &Graph) -> Result<(Self, String), LeakError> {
        let file = PlanFile::from_json(text, graph)?;
        Ok((file.plan, file.origin.made))
    }
}

impl PlanFile {
    /// Reads a plan for this network.
    ///
    /// # Errors
    /// [`LeakError::File`] with what is wrong, [`LeakError::Network`] for a plan of other shapes,
    /// [`LeakError::Model`] for a plan of other weights.
    pub fn from_json(text: &str, graph: &Graph) -> Result<Self, LeakError> {
        let fail = |why: String| LeakError::File { why };
        let file: File = serde_json::from_str(text).map_err(|e| fail(e.to_string()))?;
        if file.format != FORMAT || !(1..=VERSION).contains(&file.version) {
            let (format, version) = (file.format, file.version);
            return Err(fail(format!(
                "format \"{format}\" version {version}; {FORMAT} versions 1 to {VERSION} are read"
            )));
        }
        let origin = Origin { made: file.made.clone(), network: file.network.clone(), evidence: file.evidence.clone() };
        origin.check()?;
        if file.layers.iter().any(|l| l.name.contains(char::is_control)) {
            return Err(fail("the name of a layer holds control characters".into()));
        }
        let mut plan = Plan::hide_all(graph);
        let counts = plan.counts();
        let alike = counts.len() == file.layers.len() && file.layers.iter().zip(&counts).all(|(l, c)| l.weights == *c);
        if !alike {
            let own =
                graph.linear_nodes().map(|(node, linear)| (graph.nodes()[node].name.as_str(), linear.weights().len()));
            let theirs = file.layers.iter().map(|l| (l.name.as_str(), l.weights));
            let name = file.network.map_or("a network".into(), |n| format!("\"{n}\""));
            let expected = format!("{name} with {}", described(&theirs.collect::<Vec<_>>()));
            return Err(LeakError::Network { expected, got: described(&own.collect::<Vec<_>>()) });
        }
        for (l, (layer, &weights)) in file.layers.iter().zip(&counts).enumerate() {
            let mut next = 0;
            for &[start, end] in &layer.open {
                // The first range may begin at 0, any other beyond the end of the one before.
                let rising = start >= next && start < end && end <= weights;
                if !rising {
                    let name = &layer.name;
                    return Err(fail(format!(
                        "layer \"{name}\": [{start}, {end}] is empty, out of order or outside of {weights} weights"
                    )));
                }
                plan.open(l, start..end);
                next = end + 1;
            }
        }
        let got = model_hash(graph);
        if file.model != got {
            let name = origin.network.map_or(String::new(), |n| format!(" (\"{n}\")"));
            return Err(LeakError::Model { expected: file.model, got, name });
        }
        if file.evidence.as_ref().is_some_and(|e| e.plan != plan.digest(graph)) {
            return Err(fail("its evidence is about another plan: remove \"evidence\", or audit this plan".into()));
        }
        Ok(Self { plan, origin })
    }
}

/// Describes linear layers in words: how many, the first names, the number of all weights.
fn described(layers: &[(&str, usize)]) -> String {
    const SHOWN: usize = 4;
    let names: Vec<&str> = layers.iter().take(SHOWN).map(|(name, _)| *name).collect();
    let more = if layers.len() > SHOWN { ", ..." } else { "" };
    let weights = layers.iter().fold(0usize, |sum, (_, n)| sum.saturating_add(*n));
    format!("{} linear layers ({}{more}) and {weights} weights", layers.len(), names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jali_model::{Gemm, Op};
    use proptest::prelude::*;

    fn graph(first: f32) -> Graph {
        let mut g = Graph::new(vec![6]).unwrap();
        for outputs in [6, 4] {
            let mut weight = vec![0.5; 6 * outputs];
            weight[0] = first;
            let gemm = Gemm { weight, bias: vec![0.0; outputs], inputs: 6, outputs };
            g.push("fc".into(), Op::Gemm(gemm), vec![g.output()]).unwrap();
        }
        g
    }

    proptest! {
        #[test]
        fn any_plan_survives(open in prop::collection::vec(any::<bool>(), 60)) {
            let g = graph(1.0);
            let mut plan = Plan::hide_all(&g);
            for (w, _) in open.iter().enumerate().filter(|(_, o)| **o) {
                if w < 36 { plan.open(0, w..w + 1) } else { plan.open(1, w - 36..w - 35) }
            }
            let text = plan.to_json(&g, "test").unwrap();
            prop_assert_eq!(Plan::from_json(&text, &g).unwrap(), (plan, "test".to_string()));
        }

        #[test]
        fn changed_files_never_panic(at: prop::sample::Index, byte: u8) {
            let g = graph(1.0);
            let mut bytes = Plan::open_all(&g).to_json(&g, "test").unwrap().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(text) = String::from_utf8(bytes) {
                let _ = Plan::from_json(&text, &g);
            }
        }
    }

    #[test]
    fn evidence_stays_with_its_plan() {
        let g = graph(1.0);
        let mut plan = Plan::hide_all(&g);
        plan.open(0, 3..9);
        let evidence = Evidence {
            claim: "c".into(),
            bound: 0.02,
            upper: 0.01,
            advantage: 0.0,
            budgets: vec![50],
            attackers: vec!["zero".into()],
            seeds: 3,
            scoring: 10,
            method: 1,
            plan: plan.digest(&g),
        };
        let text = plan
            .to_json_with(&g, &Origin { made: "test".into(), network: None, evidence: Some(evidence.clone()) })
            .unwrap();
        assert_eq!(PlanFile::from_json(&text, &g).unwrap().origin.evidence, Some(evidence));
        let altered = text.replacen("9\n", "10\n", 1);
        assert!(altered != text && Plan::from_json(&altered, &g).unwrap_err().to_string().contains("another plan"));
    }

    #[test]
    fn foreign_and_wrong_plans_say_why() {
        let g = graph(1.0);
        let text = Plan::open_all(&g).to_json(&g, "test").unwrap();
        let error = |text: &str| Plan::from_json(text, &g).unwrap_err().to_string();
        assert!(matches!(Plan::from_json(&text, &graph(2.0)), Err(LeakError::Model { .. })), "other weights");
        assert!(error(&text.replace("\"version\": 3", "\"version\": 4")).contains("version 4"));
        for old in ["\"version\": 1", "\"version\": 2"] {
            assert!(Plan::from_json(&text.replace("\"version\": 3", old), &g).is_ok(), "{old} is read");
        }
        // A plan of another network says which one it is for.
        let named = Origin { made: "test".into(), network: Some("other.onnx".into()), evidence: None };
        let other = Plan::open_all(&g).to_json_with(&g, &named).unwrap().replace("36", "35");
        let why = error(&other);
        assert!(why.contains("\"other.onnx\" with 2 linear layers (fc, fc) and 59 weights"), "{why}");
        let forged = error(&text.replace("test", "\\u001b[2J"));
        assert!(forged.contains("control characters"), "{forged}");
        assert!(error(&text.replace("36", "35")).contains("59 weights"));
        assert!(error("{}").contains("format"));
        for wrong in ["[[0, 37]]", "[[3, 3]]", "[[4, 6], [6, 7]]", "[[4, 6], [1, 2]]", "[[0]]"] {
            let text = text.replacen(
                "\"open\": [\n        [\n          0,\n          36\n        ]\n      ]",
                &format!("\"open\": {wrong}"),
                1,
            );
            assert!(text.contains(wrong) && Plan::from_json(&text, &g).is_err(), "{wrong}");
        }
    }
}
