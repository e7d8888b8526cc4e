//! Every command line parses, and those that need no Kafka are run.

use std::fs;
use std::iter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use super::{none, pages, root};
use crate::cli::Cli;

/// Commands that need neither Kafka nor a daemon, where none of their options says otherwise. (Those that print what is made from their
/// own definition have tests of their own.)
const ALONE: [&str; 4] = ["validate", "test", "explain", "schema"];

/// What makes them ask Kafka or a daemon.
const MORE: [&str; 2] = ["--connect", "--against-running"];

/// The commands of a script, as lists of words: without assignments before them and redirections behind, `sudo` taken off.
/// Understands what the book uses: comments, quotes, line ends behind a backslash, pipes and lists.
fn commands(script: &str) -> Vec<Vec<String>> {
    let mut commands = vec![];
    for line in script.replace("\\\n", " ").lines() {
        let mut words: Vec<String> = vec![];
        let mut end = |words: &mut Vec<String>| commands.push(std::mem::take(words));
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                ' ' | '\t' => {}
                '#' => break,
                '|' | ';' | '&' => end(&mut words),
                c => {
                    let mut word = String::new();
                    let mut next = Some(c);
                    let mut quote = None;
                    while let Some(c) = next {
                        match (c, quote) {
                            (c, Some(q)) if c == q => quote = None,
                            ('\'' | '"', None) => quote = Some(c),
                            (c, _) => word.push(c),
                        }
                        let ends = |c: &char| matches!(c, ' ' | '\t' | '|' | ';' | '&');
                        next = chars.next_if(|c| quote.is_some() || !ends(c));
                    }
                    words.push(word);
                }
            }
        }
        end(&mut words);
    }
    for words in &mut commands {
        if let Some(at) = words.iter().position(|word| word.starts_with('>')) {
            words.truncate(at);
        }
        let assignment = |word: &String| {
            word.split_once('=')
                .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        };
        while words.first().is_some_and(|word| assignment(word) || word == "sudo") {
            words.remove(0);
        }
        if words.len() > 2 && words[0] == "-u" {
            words.drain(..2);
        }
    }
    commands.retain(|words| !words.is_empty());
    commands
}

/// The arguments of `onceflow`, if that is what is called.
fn ours(words: &[String]) -> Option<&[String]> {
    (words[0].rsplit('/').next() == Some("onceflow")).then(|| &words[1..])
}

/// What the book's readers have: the pipelines of the book by their names, the examples, and the daemon's files below `etc`.
fn workshop() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let etc = dir.path().join("etc/onceflow/pipelines");
    fs::create_dir_all(&etc).unwrap();
    fs::copy(root().join("config/onceflow.yaml"), dir.path().join("etc/onceflow/onceflow.yaml")).unwrap();
    let write = |name: &str, text: &str| {
        fs::write(dir.path().join(name), text).unwrap();
        fs::write(etc.join(name), text).unwrap();
    };
    for page in pages() {
        for block in page.blocks().iter().filter(|block| block.info == "yaml") {
            let name = block.text.lines().find_map(|line| line.strip_prefix("pipeline: ")).unwrap();
            write(&format!("{}.yaml", name.split_whitespace().next().unwrap()), &block.text);
        }
    }
    for entry in fs::read_dir(root().join("config/examples")).unwrap() {
        let entry = entry.unwrap();
        fs::create_dir_all(dir.path().join("config/examples")).unwrap();
        fs::copy(entry.path(), dir.path().join("config/examples").join(entry.file_name())).unwrap();
    }
    dir
}

/// An argument that names a file of the workshop names it absolutely.
fn placed(argument: &str, workshop: &Path) -> PathBuf {
    let there = workshop.join(argument.trim_start_matches('/'));
    if !argument.is_empty() && there.exists() { there } else { argument.into() }
}

#[test]
fn every_command_line_of_the_book_parses() {
    let workshop = workshop();
    let (mut problems, mut parsed, mut run) = (vec![], 0, 0);
    for page in pages() {
        for block in page.blocks().iter().filter(|block| block.info == "sh") {
            for words in commands(&block.text) {
                let Some(arguments) = ours(&words) else { continue };
                let place = || format!("{}: {}", block.place(), words.join(" "));
                let asks = |argument: &String| MORE.contains(&argument.as_str());
                let alone = ALONE.iter().any(|alone| arguments.first().is_some_and(|name| name == alone))
                    && !arguments.iter().any(asks);
                let arguments = arguments.iter().map(|argument| placed(argument, workshop.path()));
                match Cli::try_parse_from(iter::once("onceflow".into()).chain(arguments)) {
                    Ok(command) if alone => {
                        run += 1;
                        if command.run() != ExitCode::SUCCESS {
                            problems.push(format!("{}: it fails", place()));
                        }
                    }
                    Ok(_) => {}
                    // `--version` and `--help` are answered while parsing.
                    Err(error) if !error.use_stderr() => {}
                    Err(error) => problems.push(format!("{}: {error}", place())),
                }
                parsed += 1;
            }
        }
    }
    none(problems);
    assert!(parsed > 15 && run > 3, "{parsed} command lines, {run} run: were they looked for rightly?");
}

#[test]
fn scripts_are_understood() {
    let script = "# a comment\nA=b onceflow run 'a file' \\\n  --until-end > out # why\nsudo -u x /usr/bin/onceflow status | jq .\nsystemctl reload onceflow\n";
    let commands = commands(script);
    let ours: Vec<_> = commands.iter().filter_map(|words| ours(words)).map(|words| words.join(",")).collect();
    assert_eq!(ours, ["run,a file,--until-end", "status"]);
}
