//! The flags of settings, generated from the table in `config`.

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};

use super::exit::{CliExit, usage};
use crate::config::Settings;
use crate::config::settings::{self, Setting};

impl Args for Settings {
    fn augment_args(command: clap::Command) -> clap::Command {
        // Every subcommand has all settings, and a process parses only one subcommand.
        command.defer(|command| add_flags(command, settings::ALL))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut settings = Self::default();
        settings.update_from_arg_matches(matches)?;
        Ok(settings)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        read_flags(self, matches, settings::ALL);
        Ok(())
    }
}

/// Adds the flags of these settings to a command.
pub(super) fn add_flags(command: clap::Command, settings: &[&Setting]) -> clap::Command {
    settings.iter().filter(|setting| setting.has_flag).fold(command, |command, setting| {
        let action = if setting.repeatable { ArgAction::Append } else { ArgAction::Set };
        command.arg(
            Arg::new(setting.name)
                .long(setting.name)
                .value_name(setting.placeholder)
                .help(help_of(setting))
                .action(action)
                .allow_hyphen_values(setting.repeatable),
        )
    })
}

pub(super) fn read_flags(given: &mut Settings, matches: &ArgMatches, settings: &[&Setting]) {
    for setting in settings.iter().filter(|setting| setting.has_flag) {
        for value in matches.get_many::<String>(setting.name).into_iter().flatten() {
            given.add(setting, value);
        }
    }
}

/// Merges the flags before and after the subcommand; a flag given in both places is an error.
pub(super) fn merge(before: Settings, after: Settings) -> Result<Settings, CliExit> {
    let mut merged = before;
    for setting in settings::ALL {
        if !setting.repeatable && !merged.values(setting).is_empty() && !after.values(setting).is_empty() {
            return Err(usage(&format!("{} is given twice", flag_of(setting))));
        }
        for value in after.values(setting) {
            merged.add(setting, value);
        }
    }
    Ok(merged)
}

pub(super) fn flag_of(setting: &Setting) -> String {
    format!("--{}", setting.name)
}

pub(super) fn help_of(setting: &Setting) -> String {
    format!("{}\n[{}; default: {}]", setting.purpose, setting.variable, setting.default.description())
}

pub(super) fn after_help() -> String {
    let mut text =
        "A flag overrides its environment variable (in brackets), which overrides the default.".to_owned();
    for setting in settings::ALL.iter().filter(|setting| !setting.has_flag) {
        text.push_str(&format!(
            "\n{}: {} (default: {}).",
            setting.variable,
            setting.purpose,
            setting.default.description()
        ));
    }
    text
}
