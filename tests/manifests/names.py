"""Names that no schema knows: Knative's annotations and the metadata of KEDA's triggers, as of Knative Serving 1.23
and KEDA 2.20."""

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
