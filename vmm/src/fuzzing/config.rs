//! The configuration, which must survive its own JSON.

use crate::config::VmConfig;

/// Parses a configuration. Achieves one if it is valid.
pub(super) fn run(data: &[u8]) -> usize {
    let Ok(text) = str::from_utf8(data) else { return 0 };
    let Ok(config) = VmConfig::from_json(text) else { return 0 };
    let again = serde_json::to_string(&config).map(|json| VmConfig::from_json(&json));
    assert!(matches!(again, Ok(Ok(again)) if again == config), "{config:?} is another after JSON");
    1
}

/// Configurations with few fields and with all of them.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let all = r#"{"kernel":"/k","initramfs":"/i","cmdline":"quiet a=b","vcpus":32,"mem_size_mib":4096,
        "memory":{"backing":"anonymous","shared":true,"prefault":true},
        "balloon":{"target_mib":16,"stats":true,"free_page_reporting":true},
        "disks":[{"id":"base","path":"/d","read_only":true}],"spare_nets":4,"vsock":{"guest_cid":3,"socket":"/s"},
        "console":"/c","rng":false,"jail":{"uid":70000,"cgroup":"/g","seccomp":"log"}}"#;
    vec![br#"{"kernel":"/k","vcpus":1,"mem_size_mib":64}"#.to_vec(), all.into()]
}
