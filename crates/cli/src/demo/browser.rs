//! `jali demo --browser`: the page, with owner, server and tickets on this machine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use jali::guests::{Backend as GuestBackend, GuestSealing};
use jali::image_file::png_bytes;
use jali::serving::{Loaded, load};
use jali::{Backend, Graph, JaliError, Network, Plan, Preprocess, QuantModel, Sealing};
use jali_guest::Hidden;
use jali_model::Resize;
use jali_net::{Config, Pages, Running, wait_for_signals};
use jali_tickets::{Dealer, GuestIdentity, OwnerFile, Terms};
use serde::Serialize;

use super::DemoArgs;
use crate::text::{progress, say, say_json};

/// Tickets for each choice of what is hidden.
const TICKETS: u32 = 48;
/// Bytes of a server's file that the page draws.
const DRAWN: usize = 64 * 64;
/// Where the page lies: made by scripts/build-web, found from here and from the command upwards.
const DIST: &str = "web/dist";

/// What the page reads: `demo/demo.json`.
#[derive(Serialize)]
struct Described {
    network: &'static str,
    classes: &'static [&'static str],
    samples: Vec<Sample>,
    owner: Owner,
    plans: Vec<Choice>,
}

#[derive(Serialize)]
struct Sample {
    file: String,
    label: &'static str,
}

/// What only the owner has.
#[derive(Serialize)]
struct Owner {
    /// File of the first layer's weights, 32-bit floats.
    weights: String,
    /// Their shape: filters, channels, height, width.
    shape: Vec<usize>,
    /// Weights of the network.
    count: usize,
}

/// A choice of what is hidden.
#[derive(Serialize)]
struct Choice {
    name: &'static str,
    about: String,
    hidden: f64,
    keyed: Keyed,
    guest: Guest,
}

#[derive(Serialize)]
struct Keyed {
    bundle: String,
    served: Served,
}

#[derive(Serialize)]
struct Guest {
    manifest: String,
    tickets: String,
    key: String,
    identity: String,
    served: Served,
}

/// A part of a server's file.
#[derive(Serialize)]
struct Served {
    part: String,
    bytes: u64,
}

/// The object that `--json` prints once the page is served.
#[derive(Serialize)]
struct Started {
    url: String,
    network: &'static str,
}

pub(super) fn run(args: &DemoArgs, backend: Backend) -> anyhow::Result<()> {
    let dist = match &args.pages {
        Some(folder) => {
            // Before anything is sealed.
            let no_page = || format!("{}: it holds no index.html; scripts/build-web makes web/dist", folder.display());
            anyhow::ensure!(folder.join("index.html").is_file(), no_page());
            folder.clone()
        }
        None => find_dist().context(
            "the page is not built: scripts/build-web, in a clone of the repository, makes web/dist; or name its folder with --pages",
        )?,
    };
    let folder = tempfile::tempdir()?;
    let house = House { args, network: args.network.into(), root: folder.path().into() };
    copy_files(&dist, &house.pages())?;
    fs::create_dir_all(house.pages().join("demo"))?;
    let loaded = house.furnish(backend)?;
    let pages = Pages { folder: Some(house.pages()), origins: vec![] };
    let running = Running::start(Config { pages, ..Config::loopback() }).map_err(JaliError::from)?;
    running.serve_guests(loaded.guests);
    running.serve(loaded.keyed);
    let url = format!("http://{}/", running.addr());
    if args.common.json {
        say_json(&Started { url: url.clone(), network: house.network.name() })?;
    } else {
        say(format!("The page is at {url}"))?;
        // Whoever reads the address may stop reading there.
        let _ = say("Owner, server and page are on this machine; Ctrl-C ends them and removes their files.");
    }
    if !args.no_open && open::that_detached(&url).is_err() {
        crate::text::note("No browser could be started: open the address yourself.")?;
    }
    // A terminal that is closed ends it, too: nothing here could be read again.
    wait_for_signals(|_| true).map_err(JaliError::from)?;
    running.stop();
    Ok(())
}

/// The page's folder, from the current folder and from the command's upwards.
fn find_dist() -> Option<PathBuf> {
    let (here, command) = (std::env::current_dir().ok(), std::env::current_exe().ok());
    let above =
        |start: &Path| start.ancestors().map(|folder| folder.join(DIST)).find(|dist| dist.join("index.html").is_file());
    here.as_deref().and_then(above).or_else(|| command.as_deref().and_then(above))
}

fn copy_files(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            fs::copy(&path, to.join(name)).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// All parties' files.
struct House<'a> {
    args: &'a DemoArgs,
    network: Network,
    root: PathBuf,
}

impl House<'_> {
    fn pages(&self) -> PathBuf {
        self.root.join("pages")
    }

    /// A path for the page, and the same as a file.
    fn page(&self, name: &str) -> (String, PathBuf) {
        (format!("demo/{name}"), self.pages().join("demo").join(name))
    }

    /// Seals and deals, writes what the page reads, and loads what the server serves.
    fn furnish(&self, backend: Backend) -> anyhow::Result<Loaded> {
        // A picture of any size will do.
        let preprocess = Preprocess { resize: Resize::Crop, ..Preprocess::default() };
        let model = self.network.quantised(self.args.common.bits)?.with_preprocess(preprocess.clone())?;
        let identity = GuestIdentity::generate();
        identity.write(&self.page("me.key").1).map_err(JaliError::from)?;
        let wanted = self.plans(&model, backend)?;
        let bar = progress(wanted.len() * (2 + TICKETS as usize), "sealing and dealing");
        let (mut plans, mut bundles, mut batches) = (vec![], vec![], vec![]);
        for (index, (name, about, plan)) in wanted.into_iter().enumerate() {
            let keyed = self.keyed(index, &model, &plan, backend, &mut bundles)?;
            bar.inc(1);
            let sealed = self.root.join(format!("{index}/guests"));
            let typical = self.network.dataset().bundled_calibration()?;
            let sealing = GuestSealing::of(model.graph(), &typical, Some((0.0, 1.0)), self.args.output.config())?;
            let saved = sealing.save(&plan, self.network.name(), &preprocess, &sealed)?;
            bar.inc(1);
            let dealer = Dealer::new(OwnerFile::read(&sealed, None).map_err(JaliError::from)?, GuestBackend::best());
            let terms = Terms { guest: identity.recipient(), tickets: TICKETS, days: 1, on_demand: false };
            let batch = self.root.join(format!("{index}/batch"));
            let dealt = dealer.deal(&batch, &terms, |_| bar.inc(1)).map_err(JaliError::from)?;
            bundles.push(saved.files.server.clone());
            batches.push(dealt.server);
            // Of a batch, only the guest's half lies among the pages.
            let (to, path) = self.page(&format!("{index}-wallet"));
            fs::rename(&dealt.wallet, path)?;
            let all: Hidden = saved.weights.iter().copied().sum();
            let [manifest, tickets, key] = ["manifest", "tickets", "key"].map(|file| format!("{to}/{file}"));
            let served = self.served(&format!("{index}-guest"), &saved.files.server)?;
            let guest = Guest { manifest, tickets, key, identity: "demo/me.key".into(), served };
            plans.push(Choice { name, about, hidden: all.fraction(), keyed, guest });
        }
        bar.finish_and_clear();
        self.describe(model.graph(), plans)?;
        Ok(load(&bundles, &batches, backend, &Loaded::default())?)
    }

    fn keyed(
        &self,
        index: usize,
        model: &QuantModel,
        plan: &Plan,
        backend: Backend,
        bundles: &mut Vec<PathBuf>,
    ) -> anyhow::Result<Keyed> {
        let costs = self.args.over.costs(backend);
        let sealed = self.root.join(format!("{index}/keyed"));
        Sealing::of(model).plan(plan).costs(costs).save(&sealed)?;
        let (bundle, path) = self.page(&format!("{index}-client"));
        fs::rename(sealed.join("client"), path)?;
        let server = sealed.join("server");
        let served = self.served(&format!("{index}-keyed"), &server)?;
        bundles.push(server);
        Ok(Keyed { bundle, served })
    }

    /// What may be hidden: everything, the end of the network, a part of every layer; or what the
    /// options say.
    fn plans(&self, model: &QuantModel, backend: Backend) -> anyhow::Result<Vec<(&'static str, String, Plan)>> {
        let (leak, graph) = (&self.args.leak, model.graph());
        if leak.plan.is_some() || leak.leak > 0.0 {
            let plan = leak.plan(model, &self.args.over.costs(backend))?;
            return Ok(vec![("As the options say", "Your plan decides.".into(), plan)]);
        }
        let names: Vec<String> = graph.linear_nodes().map(|(node, _)| graph.nodes()[node].name.clone()).collect();
        let open = &names[..names.len().saturating_sub(LAST)];
        let last = jali::parts::leak::listed_layers(graph, open).map_err(jali::parts::protocol::ProtocolError::from)?;
        Ok(vec![
            ("Everything", "Nobody but the owner sees a weight.".into(), Plan::hide_all(graph)),
            ("The last three layers", "The layers before are public, as in many networks.".into(), last),
        ])
    }

    /// Writes the part of a server's file that the page draws.
    fn served(&self, name: &str, file: &Path) -> anyhow::Result<Served> {
        let bytes = fs::read(file)?;
        let from = bytes.len() / 2;
        let (part, path) = self.page(&format!("{name}.part"));
        fs::write(path, &bytes[from..(from + DRAWN).min(bytes.len())])?;
        Ok(Served { part, bytes: bytes.len() as u64 })
    }

    fn describe(&self, graph: &Graph, plans: Vec<Choice>) -> anyhow::Result<()> {
        let dataset = self.network.dataset();
        let mut samples = vec![];
        for (i, sample) in dataset.bundled_test()?.iter().take(self.args.images.into()).enumerate() {
            let (file, path) = self.page(&format!("sample-{i}.png"));
            let png = png_bytes(&sample.image).context("a bundled image is no picture")?;
            fs::write(path, png)?;
            samples.push(Sample { file, label: dataset.classes()[sample.label] });
        }
        let (_, first) = graph.linear_nodes().next().context("the network has no layer")?;
        let (weights, path) = self.page("first-layer.f32");
        fs::write(path, first.weights().iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>())?;
        let channels = dataset.shape()[0];
        let side = ((first.fan_in() / channels) as f64).sqrt() as usize;
        let shape = vec![first.outputs(), channels, side, side];
        let owner = Owner { weights, shape, count: graph.weights() };
        let described = Described { network: self.network.name(), classes: dataset.classes(), samples, owner, plans };
        fs::write(self.page("demo.json").1, serde_json::to_vec(&described)?)?;
        Ok(())
    }
}

/// Layers at the end that one of the choices hides.
const LAST: usize = 3;
