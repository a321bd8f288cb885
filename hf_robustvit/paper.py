"""The models and settings of the paper, once (sections 3 and 4, App. C)."""

# What a method takes whatever the model is: section 3 and Tab. 7. RRR's weights were tuned for each model (Tab. 6).
METHOD_DEFAULTS: dict[str, dict[str, float | bool]] = {
    "robustvit": {
        "lambda_relevance": 0.8,
        "lambda_classification": 0.2,
        "lambda_background": 2.0,
        "lambda_foreground": 0.3,
        "second_order": False,
    },
    "gradmask": {"lambda_classification": 3e-9, "lambda_background": 50.0, "second_order": True},
    "rrr": {"second_order": True},
    "finetune": {"second_order": False},
}

# The models the paper fine-tunes (Tab. 1) by its short names, and the names that each has on the Hub.
MODELS: dict[str, tuple[str, ...]] = {
    "ViT-B": ("google/vit-base-patch16-224", "timm/vit_base_patch16_224.orig_in21k_ft_in1k"),
    "ViT-L": ("google/vit-large-patch16-224",),
    "AR-S": ("timm/vit_small_patch16_224.augreg_in21k_ft_in1k",),
    "AR-B": ("timm/vit_base_patch16_224.augreg_in21k_ft_in1k",),
    "AR-L": ("timm/vit_large_patch16_224.augreg_in21k_ft_in1k",),
    "DeiT-S": ("facebook/deit-small-patch16-224", "timm/deit_small_patch16_224.fb_in1k"),
    "DeiT-B": ("facebook/deit-base-patch16-224", "timm/deit_base_patch16_224.fb_in1k"),
}
SHORT_NAMES = {name: short_name for short_name, names in MODELS.items() for name in names}

# What differs between the models: Tab. 5 (the temperatures are in the released code alone), Tab. 6 and Tab. 7.
SETTINGS: dict[str, dict[str, dict[str, float]]] = {
    "robustvit": {
        "ViT-B": {"learning_rate": 3e-6},
        "ViT-L": {"learning_rate": 9e-7},
        "AR-S": {"learning_rate": 2e-6},
        "AR-B": {"learning_rate": 6e-7},
        "AR-L": {"learning_rate": 9e-7},
        "DeiT-S": {"learning_rate": 1e-6, "temperature": 0.55},
        "DeiT-B": {"learning_rate": 8e-7, "temperature": 0.65},
    },
    "rrr": {
        "ViT-B": {"lambda_classification": 2e-6, "lambda_background": 1e-10, "learning_rate": 2e-6},
        "AR-S": {"lambda_classification": 2e-8, "lambda_background": 1e-8, "learning_rate": 1e-5},
        "AR-B": {"lambda_classification": 2e-7, "lambda_background": 1e-8, "learning_rate": 5e-7},
        "DeiT-S": {"lambda_classification": 2e-6, "lambda_background": 1e-10, "learning_rate": 1e-5},
        "DeiT-B": {"lambda_classification": 2e-6, "lambda_background": 1e-10, "learning_rate": 5e-6},
    },
    "gradmask": {
        "ViT-B": {"learning_rate": 2e-4},
        "AR-S": {"learning_rate": 5e-4},
        "AR-B": {"learning_rate": 1e-5},
        "DeiT-S": {"learning_rate": 5e-3},
        "DeiT-B": {"learning_rate": 1e-3},
    },
}

# Number of classes of a data set that are trained on (section 4).
TRAINING_CLASSES = {"imagenet-s": 500}

# The control sees the same images at the same rate as the method it is compared with.
SETTINGS["finetune"] = SETTINGS["robustvit"]

# A classifier whose head starts from random weights learns nothing at the paper's rates.
NEW_HEAD_LEARNING_RATE = 5e-5
