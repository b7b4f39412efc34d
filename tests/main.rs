//! Integration tests of the binary and the crates together: one binary, one module a topic.

// Input that is wrong: an error that names the culprit, the documented exit code, nothing overwritten.
mod bad_input;
// What the command line promises whatever the command: help, exit codes, JSON, pipes.
mod cli;
// Keeping an index up: import, remove, verify, rebuild, export.
mod durability;
// Searching by item, by condition, by score.
mod filter;
// Real photographs, where the data lies beside the repository.
mod grocery;
// Training runs that are killed, and disks that run full.
mod interruption;
// Vectors as JSON lines.
mod lines;
// Models by themselves: measured without an index, written for other programs.
mod models;
// Reports with pictures, their comparison, options for better answers.
mod reports;
// From a catalogue to an index to hits and recall; building that was cut short.
mod retrieval;
// The server over loopback: every address, what is refused, what is kept.
mod serve;
// Who may use the server: tokens, origins, TLS, read-only, files outside of the catalogue.
mod serve_access;
// What the server withstands: hostile uploads, crowds, being killed.
mod serve_hostile;
// The server as a process, and a client.
mod serving;
// Two stages of training: the second from the weights of the first.
mod stages;
// Tables in every dialect, metadata that joins, folders with all kinds of entries.
mod tables;
// Training, being stopped and going on; the demo.
mod training;
// A folder that goes away, a runner for the binary, small fixtures.
mod util;
