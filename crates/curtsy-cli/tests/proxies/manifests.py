"""Checks Kubernetes manifests against the models of the Kubernetes client: kinds, fields, required ones, types.

python3 manifests.py FILE: prints what is wrong, exits 1 then; exits 77 without the client.
"""
import json
import sys

try:
    import yaml
    from kubernetes import client
except ImportError:
    sys.exit(77)

KINDS = {
    ("apps/v1", "Deployment"): "V1Deployment",
    ("v1", "Service"): "V1Service",
    ("policy/v1", "PodDisruptionBudget"): "V1PodDisruptionBudget",
    ("networking.k8s.io/v1", "NetworkPolicy"): "V1NetworkPolicy",
}


class Response:
    def __init__(self, document):
        self.data = json.dumps(document)


def read(document, model):
    """The document as the client understands it, written down again."""
    api = client.ApiClient()
    kind = getattr(client, model)
    if hasattr(kind, "model_validate"):
        understood = kind.model_validate_json(json.dumps(document), strict=False)
        return json.loads(understood.model_dump_json(by_alias=True, exclude_none=True))
    return api.sanitize_for_serialization(api.deserialize(Response(document), model))


def missing(given, understood, at):
    """What was given and not understood."""
    if isinstance(given, dict):
        for name, value in given.items():
            where = f"{at}.{name}"
            if not isinstance(understood, dict) or name not in understood:
                yield f"{where}: there is no such field"
            else:
                yield from missing(value, understood[name], where)
    elif isinstance(given, list):
        if not isinstance(understood, list) or len(understood) != len(given):
            yield f"{at}: not a list as it should be"
        else:
            for index, value in enumerate(given):
                yield from missing(value, understood[index], f"{at}[{index}]")
    elif str(given) != str(understood):
        yield f"{at}: {given!r} is understood as {understood!r}"


def main():
    wrong = []
    for document in yaml.safe_load_all(open(sys.argv[1])):
        kind = (document.get("apiVersion"), document.get("kind"))
        if kind not in KINDS:
            wrong.append(f"{kind} is not known here")
            continue
        try:
            wrong.extend(missing(document, read(document, KINDS[kind]), kind[1]))
        except Exception as error:
            wrong.append(f"{kind[1]}: {error}")
    print("\n".join(wrong))
    sys.exit(1 if wrong else 0)


main()
