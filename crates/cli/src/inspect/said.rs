//! What `jali inspect` says of bundles.

use super::{ClientReport, Head, Report, ServerReport};
use crate::text::{bytes, primes, say, table};

fn print_head(what: &str, h: &Head) -> std::io::Result<()> {
    say(format!(
        "{what}  {} ({}, format version {}, {} sections)",
        h.path,
        bytes(h.bytes as usize),
        h.format_version,
        h.sections
    ))?;
    say(format!("        model {}, content {}", h.model_id, h.content_hash))
}

pub(super) fn print(r: &Report) -> anyhow::Result<()> {
    if let Some(s) = &r.server {
        print_server(s)?;
    }
    if let Some(c) = &r.client {
        print_client(c)?;
    }
    for file in &r.guests {
        print_head(&file.kind, &file.head)?;
    }
    match r.match_each_other {
        Some(true) => say("Both belong to the same sealing.")?,
        Some(false) => say("They DO NOT belong together: they come from different sealings.")?,
        None => {}
    }
    let per = [("hidden", r.bytes_per_hidden_weight), ("open", r.bytes_per_open_weight)];
    for (what, bytes) in per.into_iter().filter_map(|(what, b)| Some((what, b?))) {
        say(format!("Of the {what} weights, each takes {bytes:.2} bytes on the server."))?;
    }
    if r.verified {
        say("Every checksum fits.")?;
    }
    Ok(())
}

fn print_server(s: &ServerReport) -> std::io::Result<()> {
    print_head("server", &s.head)?;
    say("        nothing in it is secret: sealed rows, open rows, shapes and public seeds\n")?;
    let header = ["operator", "N", "primes", "tiles", "rows hidden", "open", "wanted", "hidden bytes", "open bytes"];
    let rows = s.operators.iter().enumerate().map(|(i, o)| {
        vec![
            i.to_string(),
            o.ring_degree.to_string(),
            primes(&o.primes_bits),
            o.tiles.to_string(),
            o.hidden_rows.to_string(),
            o.open_rows.to_string(),
            o.wanted.to_string(),
            bytes(o.hidden_bytes as usize),
            bytes(o.open_bytes as usize),
        ]
    });
    say(format!("{}\n", table(&header, 0, rows)))
}

fn print_client(c: &ClientReport) -> std::io::Result<()> {
    print_head("client", &c.head)?;
    let lock = if c.locked { "locked with a passphrase" } else { "not locked" };
    say(format!("        secret ({lock}): whoever has it can recover the model"))?;
    say(format!(
        "        input {:?}, {} bit weights and {} bit activations, {} weights hidden and {} open\n",
        c.input_shape, c.weight_bits, c.activation_bits, c.weights_hidden, c.weights_open
    ))?;
    if let Some(plan) = &c.plan {
        say(format!("        plan made by {}", plan.made))?;
        match &plan.evidence {
            Some(e) => say(format!("        evidence: {}\n", e.claim))?,
            None => say("        no evidence of what the open weights give away\n")?,
        }
    }
    let header = ["layer", "kind", "layout", "N", "primes", "tiles", "rows", "weights hidden", "open"];
    let rows = c.layers.iter().map(|l| {
        vec![
            l.name.clone(),
            l.kind.clone(),
            l.layout.clone(),
            l.ring_degree.to_string(),
            primes(&l.primes_bits),
            l.tiles.to_string(),
            l.rows.to_string(),
            l.weights_hidden.to_string(),
            l.weights_open.to_string(),
        ]
    });
    say(format!("{}\n", table(&header, 3, rows)))
}
