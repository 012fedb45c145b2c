//! `--log-driver` and `--log-opt`, with Docker's names, defaults and errors.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{Subject, attributes, size};

/// The size at which `local` rotates without `max-size`, in bytes.
const LOCAL_MAX_SIZE: u64 = 20 * 1024 * 1024;
/// How many files `local` keeps without `max-file`.
const LOCAL_MAX_FILE: u32 = 5;
/// A reader holds each file open.
const MOST_FILES: u32 = 500;

/// How a container's output is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    /// Lines of JSON in one file that grows without a limit, unless options say otherwise.
    #[default]
    JsonFile,
    /// The same lines of JSON, but by default 5 files of 20 MiB each. (Docker's `local` has a binary format, which
    /// only Docker reads, and compresses rotated files. Neither is so here.)
    Local,
    /// Not at all.
    None,
}

/// A container's log configuration. It is stored as the driver and the options as the user gave them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct LogConfig {
    driver: Driver,
    options: BTreeMap<String, String>,
    limits: Limits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    max_size: Option<u64>,
    max_file: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_size: None, max_file: 1 }
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    driver: Driver,
    #[serde(default)]
    options: BTreeMap<String, String>,
}

/// A log driver or an option that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A driver that does not exist.
    #[error("logger: no log driver named '{0}' is registered: choose json-file, local or none")]
    Driver(String),
    /// Options for `none`.
    #[error("invalid logging opts for driver none: it takes no options")]
    OptionsForNone,
    /// An option that `json-file` does not have.
    #[error("unknown log opt '{0}' for json-file log driver")]
    UnknownJsonFile(String),
    /// An option that `local` does not have.
    #[error("unknown log opt '{0}' for log driver local")]
    UnknownLocal(String),
    /// An option of Docker's that does not exist here.
    #[error("log opt '{option}' is not supported: {instead}")]
    Unsupported {
        /// The option's name.
        option: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// A `mode` that is neither `blocking` nor `non-blocking`.
    #[error("logger: logging mode not supported: {0}: choose blocking or non-blocking")]
    Mode(String),
    /// `max-buffer-size` without `mode=non-blocking`.
    #[error("logger: max-buffer-size option is only supported with 'mode=non-blocking'")]
    BufferWithoutMode,
    /// A value that can't be parsed, or is out of range.
    #[error("invalid value for {option}: '{value}': expected {expected}")]
    Value {
        /// The option's name.
        option: &'static str,
        /// Its value.
        value: String,
        /// What is accepted.
        expected: &'static str,
    },
    /// A part of `tag` that is not a known field.
    #[error(
        "log opt 'tag' has '{0}': choose {{{{.ID}}}}, {{{{.FullID}}}}, {{{{.Name}}}}, {{{{.ImageID}}}}, \
         {{{{.ImageFullID}}}}, {{{{.ImageName}}}} or {{{{.DaemonName}}}}"
    )]
    Tag(String),
}

impl LogConfig {
    /// Parses the values of `--log-driver` (empty: the default, `json-file`) and of each `--log-opt` (`name=value`;
    /// of several with the same name, the last counts).
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(driver: &str, options: &[impl AsRef<str>]) -> Result<Self, ConfigError> {
        let pairs = options.iter().map(|option| {
            let (name, value) = option.as_ref().split_once('=').unwrap_or((option.as_ref(), ""));
            (name.to_owned(), value.to_owned())
        });
        Self::new(driver.parse()?, pairs.collect())
    }

    /// Checks `options` and makes a configuration of them.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn new(driver: Driver, options: BTreeMap<String, String>) -> Result<Self, ConfigError> {
        if driver == Driver::None && !options.is_empty() {
            return Err(ConfigError::OptionsForNone);
        }
        let mut limits = match driver {
            Driver::Local => Limits { max_size: Some(LOCAL_MAX_SIZE), max_file: LOCAL_MAX_FILE },
            Driver::JsonFile | Driver::None => Limits::default(),
        };
        for (name, value) in &options {
            match name.as_str() {
                "max-size" => limits.max_size = Some(max_size(value)?),
                "max-file" => limits.max_file = max_file(value)?,
                "mode" if matches!(value.as_str(), "" | "blocking" | "non-blocking") => {}
                "mode" => return Err(ConfigError::Mode(value.clone())),
                "max-buffer-size" => max_buffer_size(&options, value)?,
                "compress" => refuse_compression(value)?,
                "labels" | "env" => {}
                "labels-regex" => return Err(no_patterns("labels-regex")),
                "env-regex" => return Err(no_patterns("env-regex")),
                "tag" => drop(attributes::render(value, &Subject::default())?),
                _ if driver == Driver::Local => return Err(ConfigError::UnknownLocal(name.clone())),
                _ => return Err(ConfigError::UnknownJsonFile(name.clone())),
            }
        }
        Ok(Self { driver, options, limits })
    }

    /// How the output is kept.
    #[must_use]
    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// The options as the user gave them, without defaults.
    #[must_use]
    pub fn options(&self) -> &BTreeMap<String, String> {
        &self.options
    }

    /// The size in bytes at which a file is rotated. It may be exceeded by one record.
    #[must_use]
    pub fn max_size(&self) -> Option<u64> {
        self.limits.max_size
    }

    /// How many files are kept, the one that is written to included: at least 1.
    #[must_use]
    pub fn max_file(&self) -> u32 {
        self.limits.max_file
    }
}

impl TryFrom<Stored> for LogConfig {
    type Error = ConfigError;

    fn try_from(stored: Stored) -> Result<Self, ConfigError> {
        Self::new(stored.driver, stored.options)
    }
}

impl From<LogConfig> for Stored {
    fn from(config: LogConfig) -> Self {
        Self { driver: config.driver, options: config.options }
    }
}

impl FromStr for Driver {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        match name {
            "" | "json-file" => Ok(Self::JsonFile),
            "local" => Ok(Self::Local),
            "none" => Ok(Self::None),
            _ => Err(ConfigError::Driver(name.to_owned())),
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::JsonFile => "json-file",
            Self::Local => "local",
            Self::None => "none",
        })
    }
}

fn max_size(value: &str) -> Result<u64, ConfigError> {
    size::parse(value, size::DECIMAL).filter(|bytes| *bytes > 0).ok_or_else(|| ConfigError::Value {
        option: "max-size",
        value: value.to_owned(),
        expected: "a positive size such as 10m",
    })
}

fn max_file(value: &str) -> Result<u32, ConfigError> {
    value.parse().ok().filter(|files| (1..=MOST_FILES).contains(files)).ok_or_else(|| ConfigError::Value {
        option: "max-file",
        value: value.to_owned(),
        expected: "a number of files from 1 to 500",
    })
}

/// Both modes write straight to the file, and the container waits for nothing but the disk: no buffer is needed.
fn max_buffer_size(options: &BTreeMap<String, String>, value: &str) -> Result<(), ConfigError> {
    if options.get("mode").is_none_or(|mode| mode != "non-blocking") {
        return Err(ConfigError::BufferWithoutMode);
    }
    size::parse(value, size::BINARY).map(drop).ok_or_else(|| ConfigError::Value {
        option: "max-buffer-size",
        value: value.to_owned(),
        expected: "a size such as 4m",
    })
}

fn refuse_compression(value: &str) -> Result<(), ConfigError> {
    match value {
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(()),
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Err(ConfigError::Unsupported {
            option: "compress",
            instead: "rotated files are kept as they are; limit them with max-size and max-file",
        }),
        _ => {
            Err(ConfigError::Value { option: "compress", value: value.to_owned(), expected: "true or false" })
        }
    }
}

fn no_patterns(option: &'static str) -> ConfigError {
    ConfigError::Unsupported { option, instead: "give the names, with commas between them, in labels or env" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_dockers() {
        let limits = |driver| {
            let config = LogConfig::parse(driver, &[""; 0]).unwrap();
            (config.driver(), config.max_size(), config.max_file())
        };
        assert_eq!(limits(""), (Driver::JsonFile, None, 1));
        assert_eq!(limits("json-file"), (Driver::JsonFile, None, 1));
        assert_eq!(limits("local"), (Driver::Local, Some(20 << 20), 5));
        assert_eq!(limits("none"), (Driver::None, None, 1));
        assert_eq!(LogConfig::default(), LogConfig::parse("", &[""; 0]).unwrap());
    }

    #[test]
    fn options_are_dockers() {
        let options = [
            "max-size=10m",
            "max-file=2",
            "max-file=3",
            "mode=non-blocking",
            "max-buffer-size=4m",
            "compress=false",
        ];
        let config = LogConfig::parse("local", &options).unwrap();
        assert_eq!((config.max_size(), config.max_file()), (Some(10_000_000), 3));
    }

    #[test]
    fn errors_are_dockers() {
        let error = |driver, options: &[&str]| LogConfig::parse(driver, options).unwrap_err().to_string();
        assert_eq!(error("", &["x=1"]), "unknown log opt 'x' for json-file log driver");
        assert_eq!(error("local", &["x"]), "unknown log opt 'x' for log driver local");
        for (driver, options, start) in [
            ("syslog", &[][..], "logger: no log driver named 'syslog' is registered"),
            ("none", &["max-size=1m"], "invalid logging opts for driver none"),
            ("", &["mode=maybe"], "logger: logging mode not supported: maybe"),
            ("", &["max-buffer-size=1m"], "logger: max-buffer-size option is only supported with"),
            (
                "",
                &["mode=blocking", "max-buffer-size=1m"],
                "logger: max-buffer-size option is only supported",
            ),
            ("", &["mode=non-blocking", "max-buffer-size=much"], "invalid value for max-buffer-size: 'much'"),
            ("", &["max-size=0"], "invalid value for max-size: '0'"),
            ("", &["max-size=-1"], "invalid value for max-size: '-1'"),
            ("", &["max-file=0"], "invalid value for max-file: '0'"),
            ("", &["max-file=501"], "invalid value for max-file: '501'"),
            ("", &["max-file=many"], "invalid value for max-file: 'many'"),
            ("local", &["compress=true"], "log opt 'compress' is not supported"),
            ("local", &["compress=maybe"], "invalid value for compress: 'maybe'"),
            ("", &["labels-regex=a.*"], "log opt 'labels-regex' is not supported"),
            ("", &["env-regex=a.*"], "log opt 'env-regex' is not supported"),
        ] {
            let error = error(driver, options);
            assert!(error.starts_with(start), "{error}");
        }
    }

    #[test]
    fn stored_configurations_are_read_back_and_checked() {
        let config = LogConfig::parse("local", &["max-size=1k", "tag={{.Name}}"]).unwrap();
        let stored = serde_json::to_string(&config).unwrap();
        assert_eq!(stored, r#"{"driver":"local","options":{"max-size":"1k","tag":"{{.Name}}"}}"#);
        assert_eq!(serde_json::from_str::<LogConfig>(&stored).unwrap(), config);
        let bare = serde_json::from_str::<LogConfig>(r#"{"driver":"json-file"}"#).unwrap();
        assert_eq!(bare, LogConfig::default());
        let error =
            serde_json::from_str::<LogConfig>(r#"{"driver":"none","options":{"a":"b"}}"#).unwrap_err();
        assert!(error.to_string().contains("driver none"), "{error}");
    }
}
