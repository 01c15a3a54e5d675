# The command line on the CPU, as a user without rights; nothing is fetched when it runs. Results come back through a mount:
#
#   docker build -t lucency .
#   docker run --rm --network none --user "$(id -u):$(id -g)" -v "$PWD:/data" lucency explain scan.dcm --out out
#
# The page and the API, with a read-only root and without rights; the token is what browsers and programs log in with:
#
#   docker volume create lucency
#   docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges -v lucency:/kept \
#       -e LUCENCY_TOKEN="$(openssl rand -base64 32)" -p 127.0.0.1:8000:8000 lucency serve --host 0.0.0.0
#
# With an NVIDIA card: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126, and docker run --gpus all.
FROM python:3.12-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements/torch.txt pyproject.toml README.md LICENSE /source/
COPY src /source/src
RUN pip install --no-cache-dir -r /source/requirements/torch.txt --index-url "$TORCH_INDEX" \
    && pip install --no-cache-dir "/source[all,serve]" \
    && rm -r /source \
    && useradd --create-home reader \
    && install -d -o reader -m 700 /kept
ENV HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib LUCENCY_DATA=/kept
EXPOSE 8000
VOLUME /kept
USER reader
WORKDIR /data
ENTRYPOINT ["lucency"]
CMD ["--help"]
