//! `onceflow completions` and `onceflow man`: what is made from the description of the commands.

use std::io;
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use super::exit::ended;

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example: onceflow completions bash > /etc/bash_completion.d/onceflow")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl CompletionsArgs {
    /// Prints the script for `command`.
    pub fn run(&self, mut command: Command) -> ExitCode {
        clap_complete::generate(self.shell, &mut command, "onceflow", &mut io::stdout());
        ExitCode::SUCCESS
    }
}

/// Print the manual page, all commands in one
#[derive(Debug, Args)]
#[command(after_help = "Example: onceflow man > /usr/local/share/man/man1/onceflow.1")]
pub struct ManArgs {}

impl ManArgs {
    /// Prints the page of `command`.
    pub fn run(&self, command: Command) -> ExitCode {
        ended(page(command, &mut io::stdout()).map(|()| ExitCode::SUCCESS).map_err(Into::into))
    }
}

/// One page: the program's own sections, then one for each command.
fn page(mut command: Command, out: &mut dyn io::Write) -> io::Result<()> {
    command.build();
    let man = clap_mangen::Man::new(command.clone());
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    man.render_options_section(out)?;
    man.render_subcommands_section(out)?;
    sections(&command, out)?;
    writeln!(
        out,
        ".SH \"EXIT STATUS\"\n0 done, 1 failed, 65 bad data under on_error: fail, 75 temporary, 78 configuration"
    )?;
    man.render_version_section(out)
}

fn sections(command: &Command, out: &mut dyn io::Write) -> io::Result<()> {
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
        if sub.has_subcommands() {
            sections(sub, out)?;
            continue;
        }
        let name = sub.get_bin_name().unwrap_or(sub.get_name()).to_uppercase();
        writeln!(out, ".SH \"{name}\"")?;
        let man = clap_mangen::Man::new(sub.clone());
        let mut text = vec![];
        man.render_description_section(&mut text)?;
        man.render_synopsis_section(&mut text)?;
        if sub.get_arguments().next().is_some() {
            man.render_options_section(&mut text)?;
        }
        man.render_extra_section(&mut text)?;
        // Sections of a page of its own are subsections here.
        out.write_all(
            String::from_utf8_lossy(&text)
                .replace("\n.SH ", "\n.SS ")
                .replace(".SH DESCRIPTION\n", "")
                .as_bytes(),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::Cli;
    use super::*;

    fn each(command: &Command, visit: &mut dyn FnMut(&Command)) {
        for sub in command.get_subcommands() {
            visit(sub);
            each(sub, visit);
        }
    }

    #[test]
    fn every_command_has_an_example_and_a_place_in_the_page() {
        let mut text = vec![];
        page(Cli::command(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        each(&Cli::command(), &mut |command| {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name} says what it does");
            if !command.has_subcommands() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example: onceflow "), "{name} has an example");
                let heading = format!("{}\"\n", name.to_uppercase());
                assert!(text.contains(&heading), "{name} is in the manual page:\n{text}");
            }
        });
    }

    #[test]
    fn completions_know_the_commands() {
        let mut script = vec![];
        clap_complete::generate(Shell::Bash, &mut Cli::command(), "onceflow", &mut script);
        let script = String::from_utf8(script).unwrap();
        each(&Cli::command(), &mut |command| assert!(script.contains(command.get_name())));
    }
}
