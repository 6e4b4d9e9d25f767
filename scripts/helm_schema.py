"""The schema of the chart's values: the settings' own for ``processor.config``, else closed."""

from __future__ import annotations

from typing import Any

from kat_otel.processor.config_schema import config_schema

__all__ = ["schema"]


def schema() -> dict[str, Any]:
    """Returns the JSON Schema of values.yaml; that of processor.config is the settings' own."""
    settings = config_schema()
    definitions = settings.pop("$defs")
    for unused in ("$schema", "$id"):
        settings.pop(unused)
    text, flag, count = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 1}
    free, anything = {"type": "object"}, {"type": "array"}
    texts = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}

    def closed(**properties: Any) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": False, "properties": properties}

    size = {"type": "string", "pattern": "^[0-9]+(Mi|Gi|Ti)$"}
    image = closed(
        repository=text, tag=text, pullPolicy={"enum": ["Always", "IfNotPresent", "Never"]}
    )
    storage = closed(size=size, storageClassName=text)
    gathered = closed(enabled=flag, label=text, labelValue=text, annotations=texts)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of the chart kat-otel",
        **closed(
            topology={"enum": ["single", "loadBalanced", "kafka"]},
            fullnameOverride=text,
            image=image,
            imagePullSecrets=anything,
            processor=closed(
                replicas=count,
                config={"$ref": "#/$defs/kat"},
                resources=free,
                storage=storage,
                sharedState=closed(existingClaim=text),
                extraEnv=anything,
            ),
            gpu=closed(
                enabled=flag,
                resourceName=text,
                runtimeClassName=text,
                nodeSelector=texts,
                tolerations=anything,
            ),
            collector=closed(
                image=image,
                replicas=count,
                config=free,
                backendConfig=free,
                env=texts,
                extraEnv=anything,
                extraVolumes=anything,
                extraVolumeMounts=anything,
                resources=free,
                storage=storage,
            ),
            agent=closed(
                enabled=flag,
                config=free,
                env=texts,
                dcgmEndpoint=text,
                resources=free,
                nodeSelector=texts,
                tolerations=anything,
            ),
            kafka=closed(brokers={"type": "array", "items": text}),
            tls=closed(secretName=text),
            auth=closed(tokenSecret=closed(name=text, key={**text, "minLength": 1})),
            workers=closed(operator=flag, image=text, secretName=text, env=anything),
            service=closed(
                type={"enum": ["ClusterIP", "LoadBalancer", "NodePort"]}, annotations=texts
            ),
            podDisruptionBudget=closed(
                enabled=flag, maxUnavailable={"type": ["integer", "string"]}
            ),
            networkPolicy=closed(**{"enabled": flag, "from": anything, "scrapers": anything}),
            autoscaling=closed(
                enabled=flag,
                minReplicas=count,
                maxReplicas=count,
                pendingSpans=count,
                scaleDown=flag,
            ),
            serviceMonitor=closed(enabled=flag, interval=text, labels=texts),
            prometheusRule=closed(enabled=flag, labels=texts),
            rules=gathered,
            dashboards=gathered,
            serviceAccount=closed(create=flag, name=text, annotations=texts),
            podAnnotations=texts,
            podLabels=texts,
            nodeSelector=texts,
            tolerations=anything,
            affinity=free,
            topologySpreadConstraints=anything,
            priorityClassName=text,
            terminationGracePeriodSeconds=count,
            **{"global": free},
        ),
        "$defs": {"kat": settings, **definitions},
    }
