# CPU:   docker build -t returnn-lite .
# CUDA:  docker build -t returnn-lite:cuda --build-arg TORCH=cu130 .
# Run:   docker run --rm [--gpus all] -v "$PWD:/experiment" returnn-lite my.config
# More in docs/install.md.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

# The index of torch's wheels: cpu, or a CUDA version such as cu130. CUDA's libraries come with the wheel, its driver
# from the host.
ARG TORCH=cpu
ARG EXTRAS=audio,text,plot,fast
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

WORKDIR /source
COPY constraints.txt ./
# First, so that a change of the sources does not install it again.
RUN pip install -c constraints.txt --extra-index-url "https://download.pytorch.org/whl/${TORCH}" torch
COPY pyproject.toml README.md LICENSE ./
COPY returnn_lite ./returnn_lite
RUN pip install -c constraints.txt ".[${EXTRAS}]" && rm -rf /source/*

# Whose files a run writes: `docker run --user "$(id -u):$(id -g)"` makes them the caller's.
RUN useradd --create-home --uid 1000 user && mkdir /experiment && chown user /experiment
USER user
WORKDIR /experiment
ENTRYPOINT ["returnn-lite"]
CMD ["--help"]
