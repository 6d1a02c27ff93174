#!/usr/bin/env bash
# Installs what building and testing moonkiln needs on Debian or Ubuntu. `--check` only says what is missing (exit 1 if anything is).
# CUDA is looked for, never installed: without it everything but the GPU backend works.
set -euo pipefail

packages=(gcc g++ make pkg-config lua5.4 liblua5.4-dev libsentencepiece-dev libjansson-dev libxxhash-dev libutf8proc-dev
  libopenblas-openmp-dev libavcodec-dev libavformat-dev libavutil-dev libswscale-dev ffmpeg
  python3-numpy libcmocka-dev bats shellcheck lua-check clang-format clang-tidy cppcheck)

missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
done

if ((${#missing[@]})); then
  if [[ ${1:-} == --check ]]; then
    echo "missing packages: ${missing[*]}" >&2
    exit 1
  fi
  command -v apt-get >/dev/null || { echo "install these by hand (no apt-get here): ${missing[*]}" >&2; exit 1; }
  as_root=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null || { echo "run this as root: apt-get install --no-install-recommends ${missing[*]}" >&2; exit 1; }
    as_root=(sudo)
  fi
  echo "installing: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if [[ ${1:-} != --check ]] && ! ls /usr/local/cuda*/lib64/libnvrtc.so* "${MOONKILN_CUDA:-/nonexistent}"/libnvrtc.so* >/dev/null 2>&1 &&
  ! PATH=$PATH:/usr/sbin:/sbin ldconfig -p 2>/dev/null | grep -q libnvrtc; then
  echo "note: no NVRTC found. The CPU backend works without it. For the GPU install NVIDIA's cuda-nvrtc and libcublas packages" \
    "(CUDA 13; pip's nvidia-cuda-nvrtc and nvidia-cublas do too) and point MOONKILN_CUDA at their library folder."
fi
