# The command line on the CPU, as a user without rights; nothing is fetched when it runs. Results come back through a mount:
#
#   docker build -t lucency .
#   docker run --rm --network none --user "$(id -u):$(id -g)" -v "$PWD:/data" lucency explain scan.dcm --out out
FROM python:3.12-slim
COPY requirements/torch.txt pyproject.toml README.md LICENSE /source/
COPY src /source/src
RUN pip install --no-cache-dir -r /source/requirements/torch.txt --index-url https://download.pytorch.org/whl/cpu \
    && pip install --no-cache-dir "/source[all]" \
    && rm -r /source \
    && useradd --create-home reader
ENV HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib
USER reader
WORKDIR /data
ENTRYPOINT ["lucency"]
CMD ["--help"]
