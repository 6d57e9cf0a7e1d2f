//! Rules of single text directives, with the reasons the original gives.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest host or node name.
const MAX_NAME: usize = 255;

pub(super) fn snapshot_name(name: &str) -> Result<(), &'static str> {
    file_name(
        name,
        "dbfilename can't be empty",
        "dbfilename can't be a path, just a filename",
    )
}

pub(super) fn append_name(name: &str) -> Result<(), &'static str> {
    file_name(
        name,
        "appendfilename can't be empty",
        "appendfilename can't be a path, just a filename",
    )
}

pub(super) fn append_directory(name: &str) -> Result<(), &'static str> {
    file_name(
        name,
        "appenddirname can't be empty",
        "appenddirname can't be a path, just a dirname",
    )
}

pub(super) fn cluster_file(name: &str) -> Result<(), &'static str> {
    require(!name.is_empty(), "cluster-config-file can't be empty")
}

/// `host|ip|port`, where the address may be left out, for each node.
pub(super) fn cluster_nodes(nodes: &str) -> Result<(), &'static str> {
    let is_node = |node: &str| {
        let parts: Vec<&str> = node.split('|').collect();
        matches!(parts[..], [host, _, port] if !host.is_empty() && port.parse::<u16>().is_ok())
    };
    require(
        nodes.is_empty() || nodes.split(' ').all(is_node) && !nodes.contains(char::is_control),
        "nodes are host|ip|port, separated by spaces",
    )
}

pub(super) fn ipv4(address: &str) -> Result<(), &'static str> {
    require(
        address.is_empty() || address.parse::<Ipv4Addr>().is_ok(),
        "Invalid IPv4 address",
    )
}

pub(super) fn ipv6(address: &str) -> Result<(), &'static str> {
    require(
        address.is_empty() || address.parse::<Ipv6Addr>().is_ok(),
        "Invalid IPv6 address",
    )
}

pub(super) fn announced_ip(address: &str) -> Result<(), &'static str> {
    require(
        means_nothing_in_files(address),
        "cluster-announce-ip contains invalid character",
    )
}

pub(super) fn hostname(name: &str) -> Result<(), &'static str> {
    require(
        name.len() <= MAX_NAME,
        "Hostnames must be less than 256 characters",
    )?;
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    require(
        name.bytes().all(known),
        "Hostnames may only contain alphanumeric characters, hyphens or dots",
    )
}

pub(super) fn human_name(name: &str) -> Result<(), &'static str> {
    require(
        means_nothing_in_files(name),
        "Announced human node name contained invalid character",
    )
}

/// Strings are compared byte by byte, so only locales that do the same can be promised.
pub(super) fn locale(name: &str) -> Result<(), &'static str> {
    require(
        matches!(name, "" | "C" | "POSIX" | "C.UTF-8" | "C.utf8"),
        "Invalid locale name",
    )
}

/// It goes into lines of INFO.
pub(super) fn one_word(name: &str) -> Result<(), &'static str> {
    require(
        name.bytes().all(|byte| byte.is_ascii_graphic()),
        "argument must be one word without control characters",
    )
}

/// `{name}` stands for a known variable, `{{` for a brace.
pub(super) fn title_template(template: &str) -> Result<(), &'static str> {
    const VARIABLES: [&str; 7] = [
        "title",
        "listen-addr",
        "server-mode",
        "port",
        "tls-port",
        "unixsocket",
        "config-file",
    ];
    const INVALID: &str = "template format is invalid or contains unknown variables";
    require(!template.is_empty(), INVALID)?;
    let mut rest = template;
    while let Some((_, after)) = rest.split_once('{') {
        rest = match after.strip_prefix('{') {
            Some(after) => after,
            None => {
                let (name, after) = after.split_once('}').ok_or(INVALID)?;
                require(VARIABLES.contains(&name), INVALID)?;
                after
            }
        };
    }
    Ok(())
}

/// Whether the text can go into a cluster's file and its nodes' messages, where other characters separate.
fn means_nothing_in_files(text: &str) -> bool {
    let known =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-./:_`".contains(&byte) || !byte.is_ascii();
    text.bytes().all(known)
}

fn file_name(name: &str, empty: &'static str, is_path: &'static str) -> Result<(), &'static str> {
    require(!name.is_empty(), empty)?;
    require(!name.contains('/'), is_path)
}

fn require(holds: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(otherwise) }
}
