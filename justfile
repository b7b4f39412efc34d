# Shortcuts for the everyday commands; each is one cargo line that works without just.

semblance := "cargo run --release --quiet --"

# List the recipes.
default:
    @just --list

# Format, lints, documentation and tests, as before every merge.
check:
    .ci/run

# All tests.
test *args:
    cargo test --workspace {{args}}

# All benchmarks (criterion).
bench *args:
    cargo bench --workspace {{args}}

# The whole engine on a catalogue it draws itself, in a few minutes.
demo *args:
    {{semblance}} demo {{args}}

# Train an embedder: just train --data photos --out runs/first
train *args:
    {{semblance}} train {{args}}

# Build or inspect an index: just index build --data photos --model runs/first --name shop
index *args:
    {{semblance}} index {{args}}

# Search with a photograph: just search photo.jpg --index shop
search *args:
    {{semblance}} search {{args}}

# Measure recall: just eval --index shop
eval *args:
    {{semblance}} eval {{args}}

# Serve an index with a web page: just serve --index shop
serve *args:
    {{semblance}} serve {{args}}
