//! All black-box suites in one test binary.
