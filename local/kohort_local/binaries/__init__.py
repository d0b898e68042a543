"""The control plane's programs: built from source once, by the module of tools in this folder."""

from __future__ import annotations

from pathlib import Path

from kohort_local.tools import Tools

VERSION = "1.36.4"
CONTROL_PLANE = Tools(
    module=Path(__file__).parent,
    packages={
        "etcd": "go.etcd.io/etcd/server/v3",
        "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
        "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
        "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    },
    # Without the version, clients would be told v0.0.0.
    flags=(
        "-trimpath",
        "-ldflags",
        "-s -w"
        f" -X k8s.io/component-base/version.gitVersion=v{VERSION}"
        f" -X k8s.io/component-base/version.gitMajor={VERSION.split('.')[0]}"
        f" -X k8s.io/component-base/version.gitMinor={VERSION.split('.')[1]}",
    ),
    takes="all together take about 5 minutes",
)
