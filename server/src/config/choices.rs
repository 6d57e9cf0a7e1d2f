//! The enums among the settings' types, with the names the configuration has for their values.

use super::form::choices;

choices! {
    /// The least important lines that are logged.
    LogLevel {
        Debug = "debug",
        Verbose = "verbose",
        Notice = "notice",
        Warning = "warning",
        Nothing = "nothing",
    }

    LogFormat {
        Legacy = "legacy",
        Logfmt = "logfmt",
        Json = "json",
    }

    LogTimestampFormat {
        Legacy = "legacy",
        Iso8601 = "iso8601",
        Milliseconds = "milliseconds",
    }

    SyslogFacility {
        User = "user",
        Local0 = "local0",
        Local1 = "local1",
        Local2 = "local2",
        Local3 = "local3",
        Local4 = "local4",
        Local5 = "local5",
        Local6 = "local6",
        Local7 = "local7",
    }

    Supervised {
        Upstart = "upstart",
        Systemd = "systemd",
        Auto = "auto",
        No = "no",
    }

    /// Who may use a dangerous command.
    Permission {
        No = "no",
        Yes = "yes",
        /// Connections from this machine only.
        Local = "local",
    }

    /// Which channels a new user may use.
    PubsubDefault {
        AllChannels = "allchannels",
        ResetChannels = "resetchannels",
    }

    /// What goes when memory runs out.
    EvictionPolicy {
        VolatileLru = "volatile-lru",
        VolatileLfu = "volatile-lfu",
        VolatileRandom = "volatile-random",
        VolatileTtl = "volatile-ttl",
        AllkeysLru = "allkeys-lru",
        AllkeysLfu = "allkeys-lfu",
        AllkeysRandom = "allkeys-random",
        NoEviction = "noeviction",
        AllkeysS3Fifo = "allkeys-s3fifo",
        AllkeysSieve = "allkeys-sieve",
        AllkeysTinyLfu = "allkeys-tinylfu",
        VolatileS3Fifo = "volatile-s3fifo",
        VolatileSieve = "volatile-sieve",
        VolatileTinyLfu = "volatile-tinylfu",
    }

    OomScoreAdjust {
        No = "no",
        Relative = "yes" | "relative",
        Absolute = "absolute",
    }

    /// When the append-only file is forced to disk.
    AppendFsync {
        EverySecond = "everysec",
        Always = "always",
        No = "no",
    }

    RdbVersionCheck {
        Strict = "strict",
        Relaxed = "relaxed",
    }

    DisklessLoad {
        Disabled = "disabled",
        OnEmptyDb = "on-empty-db",
        SwapDb = "swapdb",
        FlushBeforeLoad = "flush-before-load",
    }

    PropagationError {
        Ignore = "ignore",
        Panic = "panic",
        PanicOnReplicas = "panic-on-replicas",
    }

    /// What a cluster node calls itself in redirections.
    EndpointType {
        Ip = "ip",
        Hostname = "hostname",
        Unknown = "unknown-endpoint",
    }

    ClusterSaveBehavior {
        Sync = "sync",
        BestEffort = "best-effort",
    }

    TlsAuthClients {
        No = "no",
        Yes = "yes",
        Optional = "optional",
    }

    /// The part of a client's certificate that names its user.
    TlsUserField {
        CommonName = "CN",
        Uri = "URI",
        Off = "off",
    }
}
