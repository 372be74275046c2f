"""Names that no schema knows: Knative's annotations and the metadata of KEDA's triggers, as of Knative Serving 1.23
and KEDA 2.20."""

import re

KNATIVE = ("autoscaling.knative.dev/", "serving.knative.dev/", "networking.knative.dev/")

COUNT = r"\d+"
NUMBER = r"\d+(\.\d+)?"
PERCENT = r"[1-9]\d?(\.\d+)?|100"
DURATION = r"(\d+(\.\d+)?(h|m|s|ms))+"

# What an annotation's value looks like. The names in capitals that older texts have (minScale) are still read, but not
# to be written.
ANNOTATIONS = {
    "autoscaling.knative.dev/class": r"(kpa|hpa)\.autoscaling\.knative\.dev",
    "autoscaling.knative.dev/metric": r"concurrency|rps|cpu|memory|intentd_autoscaling_demand_percent",
    "autoscaling.knative.dev/target": NUMBER,
    "autoscaling.knative.dev/target-utilization-percentage": PERCENT,
    "autoscaling.knative.dev/target-burst-capacity": rf"-1|{NUMBER}",
    "autoscaling.knative.dev/min-scale": COUNT,
    "autoscaling.knative.dev/max-scale": COUNT,
    "autoscaling.knative.dev/initial-scale": COUNT,
    "autoscaling.knative.dev/activation-scale": COUNT,
    "autoscaling.knative.dev/scale-down-delay": DURATION,
    "autoscaling.knative.dev/scale-to-zero-pod-retention-period": DURATION,
    "autoscaling.knative.dev/window": DURATION,
    "autoscaling.knative.dev/panic-window-percentage": PERCENT,
    "autoscaling.knative.dev/panic-threshold-percentage": NUMBER,
    "autoscaling.knative.dev/metric-aggregation-algorithm": r"linear|weighted-exponential",
    "serving.knative.dev/progress-deadline": DURATION,
}

# Bounds that Knative's webhook checks, in the number itself or in seconds (serving/pkg/apis/autoscaling,
# annotation_validation.go).
RANGES = {
    "autoscaling.knative.dev/target": (0.01, float("inf")),
    "autoscaling.knative.dev/target-utilization-percentage": (1, 100),
    "autoscaling.knative.dev/target-burst-capacity": (-1, float("inf")),
    "autoscaling.knative.dev/initial-scale": (1, float("inf")),
    "autoscaling.knative.dev/activation-scale": (1, float("inf")),
    "autoscaling.knative.dev/scale-down-delay": (0, 3600),
    "autoscaling.knative.dev/scale-to-zero-pod-retention-period": (0, float("inf")),
    "autoscaling.knative.dev/window": (6, 3600),
    "autoscaling.knative.dev/panic-window-percentage": (1, 100),
    "autoscaling.knative.dev/panic-threshold-percentage": (110, 1000),
    "serving.knative.dev/progress-deadline": (1, float("inf")),
}

# These are counted in whole seconds.
WHOLE_SECONDS = {
    "autoscaling.knative.dev/scale-down-delay",
    "autoscaling.knative.dev/window",
    "serving.knative.dev/progress-deadline",
}

# The metrics that a class of autoscaler knows.
METRICS = {
    "kpa.autoscaling.knative.dev": {"concurrency", "rps"},
    "hpa.autoscaling.knative.dev": {"cpu", "memory", "intentd_autoscaling_demand_percent"},
}

UNITS = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}


def amount(value):
    """An annotation's number, or its time in seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(h|ms|m|s)", value)
    if parts:
        return sum(float(number) * UNITS[unit] for number, unit in parts)
    return float(value)


def mistakes(annotations):
    """What Knative's webhook would refuse in annotations of which each looks right by itself."""
    found = []
    for key, value in annotations.items():
        low, high = RANGES.get(key, (None, None))
        if low is not None and not low <= amount(value) <= high:
            found.append(f"{key}: {value} is not from {low} to {high}")
        if key in WHOLE_SECONDS and amount(value) % 1:
            found.append(f"{key}: {value} is not a whole number of seconds")
    scale = lambda end: float(annotations.get(f"autoscaling.knative.dev/{end}-scale", 0))
    if scale("max") and scale("min") > scale("max"):
        found.append("min-scale is above max-scale")
    kind = annotations.get("autoscaling.knative.dev/class", "kpa.autoscaling.knative.dev")
    metric = annotations.get("autoscaling.knative.dev/metric")
    if metric and metric not in METRICS.get(kind, {metric}):
        found.append(f"{kind} has no metric {metric}")
    return found


# The external triggers' own keys, and those that `intentd scaler` reads (docs/scaler.md).
EXTERNAL = {
    "scalerAddress": True,
    "enableTLS": False,
    "unsafeSsl": False,
    "target": True,
    "activationDemand": False,
    "replicas": False,
    "wakePrometheus": False,
    "wakeQuery": False,
    "wakeThreshold": False,
    "wakeKafka": False,
    "wakeTopic": False,
    "wakeGroup": False,
    "wakeLag": False,
}

# Keys by trigger, and whether one is needed; here, also those are whose default does harm.
TRIGGERS = {
    "external": EXTERNAL,
    "external-push": EXTERNAL,
    "metrics-api": {
        "url": True,
        "valueLocation": True,
        "targetValue": True,
        "activationTargetValue": False,
        "format": False,
        "timeout": False,
        "unsafeSsl": False,
        "authMode": False,
        # One replica of several would speak for all.
        "aggregateFromKubeServiceEndpoints": True,
        # The mean is the default.
        "aggregationType": True,
    },
    "prometheus": {
        "serverAddress": True,
        "query": True,
        "threshold": True,
        "activationThreshold": False,
        "namespace": False,
        "timeout": False,
        "unsafeSsl": False,
        "authModes": False,
        "customHeaders": False,
        "queryParameters": False,
        # A query that finds nothing would scale down.
        "ignoreNullValues": True,
    },
    "kafka": {
        "bootstrapServers": True,
        "consumerGroup": True,
        "topic": True,
        "lagThreshold": True,
        "activationLagThreshold": False,
        "offsetResetPolicy": False,
        "allowIdleConsumers": False,
        "excludePersistentLag": False,
        "limitToPartitionsWithLag": False,
        "version": False,
        "sasl": False,
        "tls": False,
    },
}
