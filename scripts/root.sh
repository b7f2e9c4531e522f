# Sourced by the others. Sets `main`, the repository; `torch_version`, the PyTorch in use; and `root`, where
# that one is installed and built with: `main` for the version that is pinned, else a folder of its own.
main=$(cd -P "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
pinned=$(sed -n 's/^torch==//p' "$main/scripts/requirements.txt")
torch_version=${TORCH_VERSION:-$pinned}
root=$main
[ "$torch_version" = "$pinned" ] || root=$main/.versions/$torch_version
