//! Commands, from clap's definition: what `--help` says.

use clap::{Command, CommandFactory};

use crate::cli::Cli;

const INTRODUCTION: &str = "# Commands\n\n\
    What `onceflow COMMAND --help` says. A command that succeeded ends with exit code 0; the other codes:\n\n\
    | code | means |\n| --- | --- |\n\
    | 1 | it failed, and would fail again |\n\
    | 2 | the command line is wrong |\n\
    | 65 | bad data under `on_error: fail` |\n\
    | 75 | temporary: a service manager should start it again |\n\
    | 78 | a mistake in a pipeline file or in the settings |\n";

fn gather(command: &Command, name: &str, text: &mut String) {
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
        let name = format!("{name} {}", sub.get_name());
        if sub.has_subcommands() {
            gather(sub, &name, text);
            continue;
        }
        let help = sub.clone().term_width(100).render_long_help().to_string();
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        text.push_str(&format!("\n## {name}\n\n```text\n{}\n```\n", lines.join("\n").trim_end()));
    }
}

pub(super) fn page() -> String {
    let mut command = Cli::command();
    command.build();
    let mut text = INTRODUCTION.to_owned();
    gather(&command, "onceflow", &mut text);
    text
}
