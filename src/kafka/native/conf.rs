//! A client's configuration, in order: librdkafka lets the last writer of a property win, aliases included,
//! so that "defaults, then the user's, then ours" is simply the order of the calls.

use std::ptr::NonNull;

use rdkafka_sys as sys;

use super::super::errors::{KafkaError, Result};
use super::{ErrorText, c_string};

/// Properties in the order in which they are set.
#[derive(Clone, Default)]
pub(in crate::kafka) struct Conf(Vec<(String, String)>);

impl Conf {
    /// Sets a property after all others.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.0.push((name.into(), value.into()));
        self
    }

    /// The value that wins, for tests and for decisions that depend on a user's setting.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Builds librdkafka's object.
    ///
    /// # Errors
    /// `Config`, naming the property, for one that librdkafka does not know or whose value it refuses.
    pub(super) fn build(&self) -> Result<NativeConf> {
        let conf = NativeConf::new()?;
        for (name, value) in &self.0 {
            conf.set(name, value)
                .map_err(|message| KafkaError::config(format!("set Kafka property `{name}`"), message))?;
        }
        Ok(conf)
    }

    /// What librdkafka says about one property by itself, or `None` if it takes it.
    pub fn objection(name: &str, value: &str) -> Option<String> {
        match NativeConf::new() {
            Ok(conf) => conf.set(name, value).err(),
            Err(error) => Some(error.to_string()),
        }
    }
}

/// librdkafka's configuration object until a client takes it over.
pub(super) struct NativeConf(NonNull<sys::rd_kafka_conf_t>);

impl NativeConf {
    fn new() -> Result<Self> {
        // SAFETY: the call takes nothing; null is handled.
        let conf = unsafe { sys::rd_kafka_conf_new() };
        NonNull::new(conf).map(Self).ok_or_else(|| KafkaError::bug("configure a Kafka client", "no memory"))
    }

    fn set(&self, name: &str, value: &str) -> std::result::Result<(), String> {
        let c_name = c_string("property", name).map_err(|error| error.message)?;
        let c_value = c_string("property", value).map_err(|_| "the value contains a NUL byte".to_owned())?;
        let mut text = ErrorText::new();
        // SAFETY: the object is alive, both strings are NUL-terminated and copied by librdkafka, and the
        // buffer is as long as we say.
        let result = unsafe {
            sys::rd_kafka_conf_set(
                self.0.as_ptr(),
                c_name.as_ptr(),
                c_value.as_ptr(),
                text.as_mut_ptr(),
                text.len(),
            )
        };
        match result {
            sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK => Ok(()),
            _ => Err(text.into_string()),
        }
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_conf_t {
        self.0.as_ptr()
    }

    /// Gives up ownership, to the client that took the object over.
    pub(super) fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for NativeConf {
    fn drop(&mut self) {
        // SAFETY: created by us, not taken over by a client (`forget`), and destroyed once.
        unsafe { sys::rd_kafka_conf_destroy(self.0.as_ptr()) }
    }
}
