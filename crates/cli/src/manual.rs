//! `jali completions` and `jali man`: what clap knows of the command, for shells and for `man`.

use std::io::Write;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

use super::text::say;

pub(super) fn completions(shell: Shell, mut command: Command) -> anyhow::Result<()> {
    let mut script = vec![];
    clap_complete::generate(shell, &mut command, "jali", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}

pub(super) fn pages(out: Option<&Path>, command: Command) -> anyhow::Result<()> {
    let Some(folder) = out else {
        let mut page = vec![];
        clap_mangen::Man::new(command).render(&mut page)?;
        return Ok(std::io::stdout().write_all(&page)?);
    };
    let write = std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(command, folder));
    write.map_err(|e| anyhow::anyhow!("cannot write to {}: {e}", folder.display()))?;
    Ok(say(format!("jali.1 and a page for every subcommand are in {}", folder.display()))?)
}
